"""`randfeat probe` from the command line, on tiny models and pictures made here."""

from __future__ import annotations

import csv
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from randfeat.probes import Record, load_all
from sklearn.datasets import load_digits
from test_sample_folder import make

from randfeat import Pipeline, cli, load
from randfeat.commands.probe.inputs import open_data, part_of
from randfeat.commands.probe.placing import placement, seen
from randfeat.commands.probe.sweeping import cell_of
from randfeat.data.builtin import make_digits, write_folder
from randfeat.features import store
from randfeat.features.encoder import open_encoder
from randfeat.features.store import FeatureStore

SPEC = "raster/causal/token/L2/mean/mean"
FAST = ["--workers", "0", "--device", "cpu", "--draws", "100"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tiny"
    make().save(path)
    return path


def picture(label, seed):
    """Class 0 is bright at the left, 1 at the right, 2 nowhere."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 90, size=(8, 12, 3))
    if label < 2:
        pixels[:, 6 * label : 6 * label + 6] += 160
    return Image.fromarray(pixels.astype(np.uint8))


def fill(root, count, first=0, classes=("ant", "bee", "cat")):
    for number in range(first, first + count):
        label = number % len(classes)
        path = root / classes[label] / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(label, number).save(path)
    return root


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """90 pictures by six photographers, of whom two are in test."""
    root = fill(tmp_path_factory.mktemp("data") / "photos", 90)
    rows = [
        (path.relative_to(root).as_posix(), path.parent.name, f"p{int(path.stem) // 15}")
        for path in sorted(root.rglob("*.png"))
    ]
    with (root / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "photographer", "split"])
        writer.writerows([*row, "test" if row[2] in ("p4", "p5") else "train"] for row in rows)
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("plain") / "photos", 60)


@pytest.fixture(scope="module")
def stores(model, table, tmp_path_factory):
    out = tmp_path_factory.mktemp("stores")
    for part in ("train", "test"):
        extract = ["extract", str(model), str(table), "-o", str(out / part), "--split", part, "--spec", SPEC]
        assert cli.main([*extract, "--workers", "0", "--device", "cpu"]) == 0
    return out


def probe(name, *what, out, more=()):
    return cli.main(["probe", name, *map(str, what), "-o", str(out), *FAST, *map(str, more)])


def by_name(out):
    return {(record.task, record.name): record for record in load_all(out)}


# inputs ---------------------------------------------------------------------------------------------------------------


def test_model_and_data_leave_records_and_tables(model, table, tmp_path, capsys):
    out = tmp_path / "out"
    assert probe("all", model, table, out=out, more=["--group", "photographer", "--spec", SPEC, "--shots", 2]) == 0
    shown = capsys.readouterr().out
    assert (out / "table.md").read_text() in shown
    page = (out / "report.html").read_text()
    assert page.count("<img ") == len(list((out / "plots").iterdir()))
    for part in ("Features as colours", "retrieval", "confusions"):
        assert part in page
    records = by_name(out)
    assert {task for task, _ in records} == {"knn", "linear", "fewshot", "retrieval", "cluster"}
    assert {name for _, name in records} == {f"tiny {SPEC}", "chance (noise)"}
    record = records["linear", f"tiny {SPEC}"]
    assert (record.settings["train images"], record.settings["test images"]) == (60, 30)
    assert record.settings["groups"] == {"train": 4, "test": 2}
    assert set(record.arrays["groups"]) == {"p4", "p5"}
    assert set(record.arrays["truth"]) == {"ant", "bee", "cat"}
    assert record.scores["accuracy"].value > records["linear", "chance (noise)"].scores["accuracy"].value + 0.2
    held = FeatureStore.open(next((out / "stores").iterdir()))
    assert held.specs == [SPEC]
    assert record.made_with["randfeat"]


def test_features_are_read_once(model, table, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    assert probe("knn", model, table, out=out) == 0
    kept = {path: path.stat().st_mtime_ns for path in (out / "stores").rglob("*") if path.is_file()}
    monkeypatch.setattr(store, "write", lambda *of, **the: pytest.fail("read again"))
    assert probe("linear", model, table, out=out) == 0
    assert {path: path.stat().st_mtime_ns for path in (out / "stores").rglob("*") if path.is_file()} == kept
    monkeypatch.undo()
    assert probe("linear", model, table, out=out, more=["--spec", SPEC, "raster/causal/token/L1/max/mean"]) == 0
    assert len(list((out / "stores").iterdir())) == 4  # train and test of two readings


def test_stores_and_models_measure_the_same(model, table, stores, tmp_path):
    group = ["--group", "photographer"]
    assert probe("linear", model, table, out=tmp_path / "a", more=["--spec", SPEC, *group]) == 0
    assert probe("linear", "--train", stores / "train", "--test", stores / "test", out=tmp_path / "b", more=group) == 0
    assert (
        probe(
            "compare", f"{stores / 'train'},{stores / 'test'}", out=tmp_path / "c", more=["--tasks", "linear", *group]
        )
        == 0
    )
    found = [next(record for record in load_all(tmp_path / part) if not record.is_baseline) for part in ("a", "b", "c")]
    assert found[0].scores == found[1].scores == found[2].scores
    assert found[0].fingerprints == found[1].fingerprints == found[2].fingerprints
    assert found[1].name == f"train,test {SPEC}"
    FeatureStore.merge([stores / "train", stores / "test"], tmp_path / "whole")
    more = ["--data", table, "--tasks", "linear", "--spec", SPEC, *group]
    assert probe("compare", tmp_path / "whole", model, out=tmp_path / "d", more=more) == 0
    whole, ours = (record for record in load_all(tmp_path / "d") if not record.is_baseline)
    assert whole.scores == ours.scores == found[0].scores


def test_one_store_is_cut_by_the_seed_and_groups_stay_whole(model, folder, tmp_path):
    whole = tmp_path / "whole"
    extract = ["extract", str(model), str(folder), "-o", str(whole), "--spec", SPEC]
    assert cli.main([*extract, "--workers", "0", "--device", "cpu"]) == 0
    tests = []
    for number, more in enumerate(([], [], ["--seed", "1"], ["--test-share", "0.5"])):
        assert probe("knn", whole, out=tmp_path / str(number), more=more) == 0
        tests.append(load_all(tmp_path / str(number))[0].arrays["paths"].tolist())
    assert tests[0] == tests[1] != tests[2]
    assert len(tests[0]) == 20
    assert len(tests[3]) == 30
    assert probe("retrieval", whole, out=tmp_path / "all") == 0
    assert load_all(tmp_path / "all")[0].scores["map_at_r"].n == 60
    assert probe("knn", whole, out=tmp_path / "parent", more=["--group", "parent"]) == 0
    assert len(set(load_all(tmp_path / "parent")[0].arrays["truth"])) == 1  # of one folder, which is a class


# tables ---------------------------------------------------------------------------------------------------------------


def test_compare_puts_ours_timm_and_random_weights_beside_all_baselines(model, table, tmp_path, capsys):
    import timm

    torch.manual_seed(0)
    torch.save(timm.create_model("test_vit", num_classes=3).state_dict(), tmp_path / "vit.pth")
    contenders = [model, f"timm:test_vit@{tmp_path / 'vit.pth'}", "random:timm:test_vit"]
    more = [
        "--data",
        table,
        "--group",
        "photographer",
        "--baselines",
        "--tasks",
        "linear",
        "knn",
        "--spec",
        SPEC,
        "L1/mean",
    ]
    assert probe("compare", *contenders, out=tmp_path / "out", more=more) == 0
    records = load_all(tmp_path / "out")
    linear = [record for record in records if record.task == "linear"]
    assert [record.name for record in linear if not record.is_baseline] == [
        f"tiny {SPEC}",
        "timm:test_vit@vit.pth L1/mean",
        "random:timm:test_vit L1/mean",
    ]
    assert {record.name for record in linear if record.is_baseline} == {
        f"random:tiny {SPEC}",
        "pixels",
        "RBF-SVM on pixels",
        "recentred pixels",
        "HOG",
        "PCA of pixels",
        "patch counts",
        "colour histogram",
        "tokens of tiny",
        "chance (noise)",
    }
    assert len({tuple(record.arrays["paths"]) for record in records}) == 1
    pixels, ours = (next(r for r in linear if r.name == name) for name in ("pixels", f"tiny {SPEC}"))
    assert pixels.scores["accuracy"].value > 0.9
    assert len(pixels.search) == len(ours.search)  # the same search
    text = (tmp_path / "out" / "table.md").read_text()
    assert "| *RBF-SVM on pixels* |" in text
    assert "p (Holm)" in text
    shown = capsys.readouterr().out
    assert text in shown


def test_random_weights_are_other_weights_and_the_same_each_time(model):
    from randfeat.commands.probe.inputs import open_model

    cpu = torch.device("cpu")
    images = [picture(label, 0) for label in range(3)]
    trained, fresh, again, other = (
        open_model(*of)
        for of in ((str(model), [SPEC], cpu), *((f"random:{model}", [SPEC], cpu, torch.float32, s) for s in (0, 0, 1)))
    )
    first = fresh.features(images)[0]
    np.testing.assert_array_equal(first, again.features(images)[0])
    for one in (trained, other):
        assert not np.allclose(first, one.features(images)[0])
    with pytest.raises(ValueError, match="timm has no model 'nonsense'"):
        open_model("random:timm:nonsense", [], cpu)


def test_attentive_reads_dense_maps_of_its_own_accord(model, table, tmp_path):
    assert probe("attentive", model, table, out=tmp_path, more=["--no-search", "--baselines"]) == 0
    records = {record.name: record for record in load_all(tmp_path)}
    assert set(records) == {
        "tiny raster/full/query/L1/none/mean",
        "random:tiny raster/full/query/L1/none/mean",
        "patch pixels",
        "HOG cells",
        "cell colours",
        "tokens of tiny",
        "chance (noise)",
        *(
            f"{name}, one cell"
            for name in ("pixels", "recentred pixels", "HOG", "PCA of pixels", "patch counts", "colour histogram")
        ),
        "tokens of tiny, one cell",
    }
    assert records["pixels, one cell"].scores["accuracy"].value > 0.9
    assert all(set(records[name].search) for name in ("patch pixels", "HOG cells"))  # as they are, or with the place
    solved = records["cell colours"].scores["accuracy"].value, records["patch pixels"].scores["accuracy"].value
    assert max(solved) > 0.9  # left, right and nowhere


def test_online_probes_read_crops(table, tmp_path, monkeypatch, capsys):
    from dataclasses import replace

    import timm
    from randfeat.probes import HeadRecipe

    torch.save(timm.create_model("test_vit", num_classes=3).state_dict(), tmp_path / "vit.pth")
    short = replace(HeadRecipe.dinov2(), batch=16, iterations=4)
    monkeypatch.setattr(HeadRecipe, "dinov2", classmethod(lambda cls: short))
    model = f"timm:test_vit@{tmp_path / 'vit.pth'}"
    more = ["--recipe", "dinov2", "--online", "--spec", "L1/mean"]
    assert probe("linear", model, table, out=tmp_path / "out", more=more) == 0
    record = load_all(tmp_path / "out")[0]
    assert record.settings["online"]
    assert len(record.search) == 13
    assert record.chosen in record.search
    assert record.scores["accuracy"].n == 30
    assert probe("linear", model, table, out=tmp_path / "one", more=[*more, "--no-search"]) == 0
    assert load_all(tmp_path / "one")[0].search == {}
    capsys.readouterr()
    assert probe("knn", model, table, out=tmp_path / "no", more=more) == 1
    assert "--online is for `probe linear` with a --recipe" in capsys.readouterr().err


def test_the_digits_as_a_folder(tmp_path):
    write_folder(make_digits(), tmp_path / "digits", {"set": "digits"})
    parts = open_data(str(tmp_path / "digits"), None, None)
    assert [len(part) for part in parts] == [1157, 640]
    train, test = (part_of(part, "writer") for part in parts)
    assert set(train.groups) == {str(writer) for writer in range(9)}
    assert set(test.groups) == {str(writer) for writer in range(9, 14)}
    assert set(test.labels) == set(range(10))
    images = load_digits().images
    seen = np.asarray(parts[1].read(3)) / 255 * 16
    np.testing.assert_allclose(seen, images[1157 + 3], atol=0.04)


# correspondence -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spair(tmp_path_factory):
    """Three pairs of pictures of 24 x 24 pixels, one of them of a picture with itself."""
    root = tmp_path_factory.mktemp("spair") / "SPair-71k"
    (root / "JPEGImages" / "cat").mkdir(parents=True)
    for name in "abc":
        noise = np.random.default_rng(ord(name)).integers(0, 256, (24, 24, 3)).astype(np.uint8)
        Image.fromarray(noise).save(root / "JPEGImages" / "cat" / f"{name}.png")
    for part in ("test", "val"):
        (root / "PairAnnotation" / part).mkdir(parents=True)
        for number, (one, two) in enumerate(("aa", "ab", "bc")):
            points = [[4, 10], [12, 9], [20, 12]]
            content = {"category": "cat", "src_imname": f"{one}.png", "trg_imname": f"{two}.png"}
            content |= {"src_kps": points, "trg_kps": points, "src_imsize": [24, 24, 3], "trg_imsize": [24, 24, 3]}
            content |= {"src_bndbox": [0, 0, 24, 24], "trg_bndbox": [0, 0, 24, 24]}
            (root / "PairAnnotation" / part / f"{number}.json").write_text(json.dumps(content))
    return root


def test_correspondence_scores_pairs(model, spair, tmp_path):
    dense = ["--spec", "raster/causal/token/L1/none/mean", "raster/causal/token/L2/none/mean"]
    more = [*dense, "--alphas", 0.5, 0.2, "--baselines"]
    assert probe("correspondence", model, spair, out=tmp_path, more=more) == 0
    assert "Lines go to where a point was found" in (tmp_path / "report.html").read_text()
    ours, *others = load_all(tmp_path)
    assert ours.name == "tiny"
    assert {one.name: one.is_baseline for one in others} == dict.fromkeys(
        (
            "random:tiny",
            "patch pixels",
            "HOG cells",
            "cell colours",
            "tokens of tiny",
            "the same place",
            "chance (noise)",
        ),
        True,
    )
    by = {one.name: one for one in others}
    assert by["the same place"].arrays["right"].min() == 1  # where all points are: to within a cell
    assert by["patch pixels"].arrays["right"][0] == 1
    assert by["patch pixels"].chosen in by["patch pixels"].search
    assert list(ours.scores) == ["pck@0.5", "pck@0.2"]
    assert ours.scores["pck@0.5"].n == 3
    assert ours.arrays["right"][0] == 1  # a picture matches itself, to within a cell
    assert ours.chosen in ours.search
    assert set(ours.search) == {"raster/causal/token/L1/none/mean", "raster/causal/token/L2/none/mean"}
    assert "| pck@0.5 |" in (tmp_path / "table.md").read_text().splitlines()[0]


def test_pairs_that_one_model_crops_away_are_scored_for_none(model, tmp_path):
    """timm's network sees the middle 7/8 of a picture, ours all of it: the points of pair 1 lie at the border."""
    root = tmp_path / "pairs"
    (root / "JPEGImages" / "cat").mkdir(parents=True)
    (root / "PairAnnotation" / "test").mkdir(parents=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3)).astype(np.uint8)).save(
        root / "JPEGImages" / "cat" / "a.png"
    )
    for number, point in enumerate(([30, 30], [0, 30], [20, 25])):
        content = {"category": "cat", "src_imname": "a.png", "trg_imname": "a.png", "src_kps": [point]}
        content |= {"trg_kps": [point], "src_imsize": [60, 60, 3], "trg_imsize": [60, 60, 3]}
        content |= {"src_bndbox": [0, 0, 60, 60], "trg_bndbox": [0, 0, 60, 60]}
        (root / "PairAnnotation" / "test" / f"{number}.json").write_text(json.dumps(content))
    assert probe("correspondence", model, "random:timm:test_vit", root, out=tmp_path / "out") == 0
    assert [record.scores["pck@0.1"].n for record in load_all(tmp_path / "out")] == [2, 2, 2]


@pytest.mark.parametrize("size", [(400, 300), (300, 400), (120, 80), (600, 100)])
def test_points_are_followed_through_the_preparation(model, size):
    """A bright spot lies in the input where the placement says."""
    import timm

    from randfeat.features.timm_encoder import TimmEncoder

    theirs = TimmEncoder(timm.create_model("test_vit", pretrained=False, num_classes=0))
    assert theirs.prepare.config["crop_pct"] != 1
    columns, rows = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    for encoder in (open_encoder(str(model)), theirs):
        for away in (-0.1, 0.0, 0.2):
            x, y = (side / 2 + away * min(size) for side in size)
            spot = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * (min(size) / 12) ** 2))
            seen = np.asarray(encoder.prepare(Image.fromarray(spot.round().astype(np.uint8)).convert("RGB")))
            seen = seen.mean(axis=0 if seen.shape[0] == 3 else 2)
            down, across = ((np.arange(side) + 0.5) / side for side in seen.shape)
            found = (seen.sum(0) @ across / seen.sum(), seen.sum(1) @ down / seen.sum())
            expected = placement(encoder)(size).into(np.array([[x, y]]))[0]
            np.testing.assert_allclose(found, expected, atol=0.01 + 0.5 / min(seen.shape))  # crops are whole pixels


@pytest.mark.parametrize("size", [(400, 300), (301, 402), (90, 600), (60, 40)])
def test_baselines_see_what_the_model_sees(model, size):
    """A smooth picture, scaled by the model's own preparation and for the baselines."""
    across, down = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
    image = Image.fromarray((255 * np.stack([across, down, across * down], axis=2)).astype(np.uint8))
    encoder = open_encoder(str(model), [], torch.device("cpu"))
    expected = encoder.prepare(image)
    found = seen(image, placement(encoder), expected.shape[:2])
    np.testing.assert_allclose(found.astype(int), expected.astype(int), atol=24)  # crops are whole pixels


def test_very_many_pictures_are_read_in_smaller_cells(monkeypatch):
    from randfeat.commands.probe import baselines

    few, small = [Image.new("L", (320, 200))] * 4, [Image.new("L", (7, 5))] * 4
    assert baselines._side([few, few], (4, 4)) == 8
    assert baselines._side([few, small], (4, 4)) == 2
    assert baselines._side([few], (40, 40)) == 5
    monkeypatch.setattr(baselines, "NUMBERS", 4 * 16 * 3 * 30)
    assert baselines._side([few], (4, 4)) == 5


# segmentation ---------------------------------------------------------------------------------------------------------

COLOURS = {0: None, 1: (230, 40, 40), 2: (40, 60, 230)}  # the background is whatever


def shapes(root, count, layout="voc", size=(24, 36), seed=0):
    """Red squares and blue bars on grey clutter, half of them in train; a border that nobody labelled."""
    names = {"voc": ("JPEGImages", "SegmentationClass"), "pair": ("photos/{}", "labels/{}")}[layout]
    rng, lists = np.random.default_rng(seed), {"train": [], "val": []}
    for number in range(count):
        part = "train" if number % 2 else "val"
        labels = np.zeros(size, np.uint8)
        for label, (height, width) in ((1, (14, 14)), (2, (8, 20))):
            top, left = rng.integers(size[0] - height), rng.integers(size[1] - width)
            labels[top : top + height, left : left + width] = label
        pixels = np.repeat(rng.integers(60, 200, (*size, 1)), 3, axis=2)
        for label in (1, 2):
            pixels[labels == label] = COLOURS[label]
        labels[:2] = 255
        for folder, array in zip(names, (pixels.astype(np.uint8), labels), strict=True):
            path = root / folder.format(part) / f"{number:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
        lists[part].append(f"{number:02}")
    if layout == "voc":
        (root / "ImageSets" / "Segmentation").mkdir(parents=True)
        for part, listed in lists.items():
            (root / "ImageSets" / "Segmentation" / f"{part}.txt").write_text("\n".join(listed))
    return root


def test_segmentation_of_a_folder_like_voc(model, tmp_path, capsys):
    voc = shapes(tmp_path / "voc", 40)
    more = ["--baselines", "--spec", "raster/causal/token/L1/none/mean", "raster/causal/token/L2/none/mean"]
    assert probe("segmentation", model, voc, out=tmp_path / "out", more=more) == 0
    records = {record.name: record for record in load_all(tmp_path / "out")}
    assert {name for name, record in records.items() if not record.is_baseline} == {"tiny"}
    assert set(records) == {
        "tiny",
        "random:tiny",
        "patch pixels",
        "HOG cells",
        "cell colours",
        "tokens of tiny",
        "the same place",
        "chance (noise)",
    }
    ours, pixels, chance = (records[name] for name in ("tiny", "patch pixels", "chance (noise)"))
    assert set(ours.per_class) == {"0", "1", "2"}
    assert len(ours.search) == 6
    assert ours.chosen in ours.search
    assert ours.scores["mIoU"].n == 20
    assert set(ours.fingerprints) == {"data", "features"}
    assert pixels.scores["mIoU"].low > chance.scores["mIoU"].high + 0.1
    assert pixels.per_class["1"] > 0.4  # on six cells for each picture
    table = (tmp_path / "out" / "table.md").read_text()
    assert "| segmentation | mIoU |" in table
    assert "p (Holm)" in table
    assert table in capsys.readouterr().out


def test_all_models_are_scored_on_the_pixels_that_all_see(model, tmp_path):
    """timm's network sees the middle 7/8 of a picture's shorter side squared, ours three halves as wide."""
    pair = shapes(tmp_path / "pair", 12, "pair")
    more = ["--images", "photos/train", "photos/val", "--maps", "labels/train", "labels/val", "--no-search"]
    scored = []
    for number, models in enumerate(([model], [model, "random:timm:test_vit"])):
        out = tmp_path / str(number)
        assert probe("segmentation", *models, pair, out=out, more=more) == 0
        scored.append(next(record for record in load_all(out) if record.name.startswith("tiny")))
    alone, beside = (record.arrays["either"].sum() for record in scored)
    assert 6 * 22 * 36 <= alone <= 2 * 6 * 22 * 36  # each pixel counts once or, if it is wrong, twice
    assert beside <= 2 * 6 * 21 * 21


@pytest.mark.parametrize(
    ("what", "says"),
    [
        (["nowhere"], "there is no folder nowhere"),
        (["{voc}", "--split", "train", "test"], "holds neither ImageSets/Segmentation/test.txt nor annotations/test/"),
        (["{voc}", "--images", "a", "b"], "--images and --maps go together"),
        (["{voc}", "--images", "a", "b", "--maps", "c", "d"], "there are no label maps"),
        (["{voc}", "--ignore", "0"], "--ignore is for --maps"),
        (["{voc}", "--spec", "raster/causal/token/L1/mean/mean"], "gives no dense map: choose the pool none"),
    ],
)
def test_segmentation_says_what_is_wrong(what, says, model, tmp_path, capsys):
    voc = shapes(tmp_path / "voc", 4)
    assert probe("segmentation", model, *(word.format(voc=voc) for word in what), out=tmp_path / "out") == 1
    assert says in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.json"))


# what goes wrong ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ([], "give a STORE, a MODEL and DATA, or --train STORE --test STORE"),
        (["a", "b", "c"], "give a STORE, a MODEL and DATA"),
        (["--train", "a"], "give a STORE, a MODEL and DATA"),
        (["--train", "nowhere", "--test", "nowhere"], "there is no feature store nowhere"),
        (["nowhere"], "nowhere is no feature store: give DATA as well for a model to read"),
        (["nowhere", "{table}"], "nowhere"),
        (
            ["{model}", "{table}", "--group", "nobody"],
            "metadata.csv has no column nobody: there is path, label, photographer",
        ),
        (["{folder}", "{folder}"], "config.json"),
        (["{model}", "{folder}", "--group", "writer"], "is no table, so it has no column writer"),
        (["{model}", "{folder}", "--test-share", "0.7"], "share=0.7: expected more than 0 and at most 0.5"),
        (["{model}", "{table}", "--split", "train", "nonsense"], "has the splits test, train, not 'nonsense'"),
        (["{model}", "{table}", "--spec", "raster/nonsense"], "raster/nonsense"),
        (["{model}", "{folder}/ant"], "has no labels"),
        (["{model}", "{table}", "--test-share", "0.2"], "train and test are given already"),
        (["{model}", "{table}", "--recipe", "mae"], "--recipe is for linear probes"),
        (["{stores}/train", "--split", "train", "test"], "--split, --labels and --label-column are for DATA"),
        (["{stores}/train", "--spec", "pooled"], "holds no feature pooled: there is raster/causal/token/L2/mean/mean"),
    ],
)
def test_errors_are_one_sentence_and_leave_no_records(what, says, model, table, folder, stores, tmp_path, capsys):
    given = [word.format(model=model, table=table, folder=folder, stores=stores) for word in what]
    assert probe("knn", *given, out=tmp_path / "out") == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("randfeat probe: ")
    assert says in said
    assert not list((tmp_path / "out").glob("*.json"))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--group", "nobody"], "has no column nobody"),
        (["--test-share", "0.2"], "train and test are given already"),
        (["--label-column", "nobody"], "metadata.csv has no column nobody: there is path, label, photographer, split"),
        (["--tasks", "attentive", "--split", "train", "nonsense"], "has the splits test, train, not 'nonsense'"),
        (["{stores}/train,{stores}/test", "--spec", "pooled"], "holds no feature pooled"),
    ],
)
def test_what_is_wrong_is_said_before_images_are_read(more, says, model, table, stores, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("randfeat.commands.probe.inputs.extract", lambda *of: pytest.fail("images were read"))
    given = [word.format(stores=stores) for word in more]
    assert probe("compare", model, *given, out=tmp_path, more=["--data", table]) == 1
    assert says in capsys.readouterr().err


def test_no_train_is_said_before_images_are_read(model, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("randfeat.commands.probe.inputs.extract", lambda *of: pytest.fail("images were read"))
    assert probe("knn", model, folder, out=tmp_path, more=["--test-share", 0]) == 1
    assert "--test-share 0 leaves no train images, which knn needs" in capsys.readouterr().err


def test_labels_of_a_column_with_another_name(model, table, tmp_path, capsys):
    other = table.parent / "breeds.csv"
    lines = (table / "metadata.csv").read_text().replace("path,label", "path,breed").splitlines()
    other.write_text("\n".join(f"photos/{line}" if ".png" in line else line for line in lines))
    assert probe("knn", model, other, out=tmp_path / "a") == 1
    said = capsys.readouterr().err
    assert "has no labels: its columns are path, breed, photographer, split, expected one called label" in said
    assert probe("knn", model, other, out=tmp_path / "b", more=["--label-column", "breed", "--no-search"]) == 0
    assert set(load_all(tmp_path / "b")[0].arrays["truth"]) == {"ant", "bee", "cat"}


def test_odd_data_work_or_say_why(model, tmp_path, capsys):
    def photos(name, train, test):
        for part, labels in (("train", train), ("test", test)):
            for number, label in enumerate(labels):
                path = tmp_path / name / part / f"c{label}" / f"{part}{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                picture(label, number + 50 * (part == "test")).save(path)
        return tmp_path / name

    one_each = photos("one_each", [0, 1, 2], [0, 1, 2])
    assert probe("all", model, one_each, out=tmp_path / "a") == 0
    said = capsys.readouterr().err
    assert "note: fewshot is left out: class c0 has 1 images for 5 shots." in said
    assert "note: retrieval is left out: no class has two test images." in said
    assert said.count("nothing is chosen, the first candidate is taken") == 1
    assert {record.task for record in load_all(tmp_path / "a")} == {"knn", "linear", "cluster"}
    unseen = photos("unseen", [0, 0, 0, 1, 1, 1], [0, 1, 2, 2])
    assert probe("all", model, unseen, out=tmp_path / "b", more=["--shots", 2]) == 0
    said = capsys.readouterr().err
    assert "note: fewshot is left out: test has the class c2, which train lacks." in said
    assert "note: 2 test images are of classes that train lacks (first: c2) and count as wrong." in said
    assert probe("knn", model, photos("single", [0, 0], [0, 0]), out=tmp_path / "c") == 1
    assert "labels hold one class (c0), expected two or more" in capsys.readouterr().err
    assert probe("knn", model, photos("few", [0, 1], [0]), out=tmp_path / "d") == 0
    twice = photos("twice", [0, 0, 1, 1], [0, 1])
    (twice / "test" / "c0" / "copy.png").write_bytes((twice / "train" / "c0" / "train0.png").read_bytes())
    capsys.readouterr()
    assert probe("knn", model, twice, out=tmp_path / "e") == 0
    assert "1 of 3 test images have exactly the tiny" in capsys.readouterr().err


def test_parts_of_other_names_are_asked_for(model, table, tmp_path, capsys):
    other = table.parent / "other.csv"
    text = (table / "metadata.csv").read_text().replace(",test", ",evaluation")
    other.write_text("\n".join(f"photos/{line}" if ".png" in line else line for line in text.splitlines()))
    assert probe("knn", model, other, out=tmp_path) == 1
    assert "has the splits evaluation, train: say which one" in capsys.readouterr().err
    assert probe("knn", model, other, out=tmp_path, more=["--split", "train", "evaluation"]) == 0
    assert load_all(tmp_path)[0].scores["k=20"].n == 30


def test_a_store_of_other_images_is_not_compared(model, table, folder, stores, tmp_path, capsys):
    both = f"{stores / 'train'},{stores / 'test'}"
    assert probe("compare", both, f"{stores / 'test'},{stores / 'train'}", out=tmp_path) == 1
    assert "has no features of" in capsys.readouterr().err
    assert probe("compare", both, both, out=tmp_path) == 1
    assert "is given twice" in capsys.readouterr().err
    assert probe("compare", both, out=tmp_path, more=["--baselines"]) == 1
    assert "baselines read pictures, and there are none here" in capsys.readouterr().err


def test_records_name_what_made_them(model, table, tmp_path):
    assert probe("linear", model, table, out=tmp_path) == 0
    record = next(Record.load(path) for path in tmp_path.glob("linear-tiny*.json"))
    assert set(record.fingerprints) == {"features", "data", "labels"}
    assert {"randfeat", "numpy", "scikit-learn"} <= set(record.made_with)


def test_options_know_the_tasks_and_recipes_that_there_are():
    from randfeat.probes import HeadRecipe
    from randfeat.probes.tasks.classification import MEASURES
    from randfeat.probes.tasks.classification import RECIPES as KNOWN

    from randfeat.commands.probe import PROBES, options

    assert options.RECIPES == KNOWN
    assert all(isinstance(getattr(HeadRecipe, name)(), HeadRecipe) for name in options.RECIPES)
    assert {*options.EVERY, "attentive"} == set(MEASURES)
    assert set(MEASURES) | {"correspondence", "segmentation", "likelihood", "sweep", "all", "compare"} <= set(PROBES)


# sweep ----------------------------------------------------------------------------------------------------------------

GRID = ["--orders", "raster", "random*2", "--layers", "L1", "L-1", "--pools", "mean", "grid2"]


def test_sweep_ranks_on_train_and_scores_the_best_once(model, table, tmp_path, capsys):
    out = tmp_path / "out"
    more = [*GRID, "--contexts", "causal", "after", "--group", "photographer", "--folds", "3"]
    assert probe("sweep", model, table, out=out, more=more) == 0
    shown = capsys.readouterr().out
    with (out / "readings.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file)]
    assert "Readings of tiny: knn" in (out / "report.html").read_text()
    assert len(list((out / "plots").glob("Readings-*"))) == 4  # heat maps and curves of two tasks
    depth = load(model).generator.depth
    specs = [row["spec"] for row in rows if row["task"] == "knn"]
    # two orders, two layers, two pools; causal has both streams, after the query stream alone
    assert len(specs) == len(set(specs)) == 2 * 2 * 2 * 3
    assert {spec.split("/")[3] for spec in specs} == {"L1", f"L{depth}"}
    for task in ("knn", "linear"):
        own = [row for row in rows if row["task"] == task]
        best = max(own, key=lambda row: float(row["value"]))
        assert [row["spec"] for row in own if row["best"] == "True"] == [best["spec"]]
        assert best["spec"] in shown
        record = by_name(out)[task, f"tiny {best['spec']}"]
        assert record.chosen.startswith(f"{best['spec']}/")
        assert record.search[best["spec"]] == pytest.approx(float(best["value"]), abs=1e-5)
        assert record.settings["best on train"]
        assert int(best["n"]) == record.settings["train images"] == 60
        assert record.scores[record.headline].n == 30
        width = FeatureStore.open(next((out / "stores").iterdir())).as_numpy(best["spec"]).shape[1]
        assert int(best["dimension"]) == width


def test_sweep_of_a_store_is_that_of_its_vectors(model, table, tmp_path):
    specs = [SPEC, "raster/causal/token/L1/mean/mean", "raster/causal/token/L2/none/mean"]
    for part in ("train", "test"):
        extract = ["extract", str(model), str(table), "-o", str(tmp_path / part), "--split", part, "--spec", *specs]
        assert cli.main([*extract, "--workers", "0", "--device", "cpu"]) == 0
    out = tmp_path / "out"
    assert probe("sweep", f"{tmp_path / 'train'},{tmp_path / 'test'}", out=out, more=["--tasks", "knn"]) == 0
    with (out / "readings.csv").open(newline="") as file:
        assert [row["spec"] for row in csv.DictReader(file)] == specs[:2]


def test_sweep_of_a_model_of_timm_is_over_layers_and_pools(table, tmp_path):
    name = "random:timm:test_vit"
    more = ["--tasks", "knn", "--layers", "L1", "L-1", "--pools", "mean", "cls", "--shifts", "1", "2", "--no-search"]
    assert probe("sweep", name, table, out=tmp_path / "out", more=more) == 0
    with (tmp_path / "out" / "readings.csv").open(newline="") as file:
        found = {row["spec"].partition("/")[2] for row in csv.DictReader(file)}
    assert found == {"mean", "cls", "mean/shifts2", "cls/shifts2"}


def test_shifts_of_a_sweep_have_maps_of_their_own():
    assert cell_of("raster/full/query/L2/grid2/mean") == ("raster full", "query grid2 mean", "L2")
    assert cell_of("raster/full/query/L2/grid2/mean/shifts2") == ("raster full shifts2", "query grid2 mean", "L2")
    assert (cell_of("L2/cls"), cell_of("L2/cls/shifts2")) == (("", "cls", "L2"), ("shifts2", "cls", "L2"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--orders", "spiral"], "--orders spiral: order 'spiral' is none of raster"),
        (["--contexts", "causal", "future"], "--contexts future: context 'future' is none of"),
        (["--layers", "L99"], "--layers L99: .*layers are numbered 1 to"),
        (["--pools", "none"], "is a dense map: sweep over pools that make vectors"),
        (["--shifts", "1", "0"], "--shifts 0: shifts are counted from 1"),
        (["--recipe", "mae"], "leave --recipe and --online out"),
    ],
)
def test_sweep_refuses_what_no_reading_has(more, message, model, table, tmp_path, capsys):
    assert probe("sweep", model, table, out=tmp_path / "out", more=more) == 1
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_sweep_takes_one_model(model, table, tmp_path, capsys):
    assert probe("sweep", model, model, table, out=tmp_path / "out") == 1
    assert "one MODEL and DATA, or one STORE" in capsys.readouterr().err
    assert probe("sweep", "random:timm:test_vit", table, out=tmp_path / "out", more=["--orders", "raster"]) == 1
    assert "leave --orders out" in capsys.readouterr().err


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """A model whose classes are called as those of the data."""
    path = tmp_path_factory.mktemp("model") / "named"
    made = make()
    Pipeline(made.tokenizer, made.generator, ["bee", "ant", "cat"]).save(path)
    return path


def test_likelihood_stands_beside_probes_of_the_same_images(named, table, tmp_path):
    command = ["probe", "likelihood", str(named), str(table), "-o", str(tmp_path), "--group", "photographer"]
    assert cli.main([*command, "--orders", "1", "4", "--beside", "knn", *FAST]) == 0
    record, other = load_all(tmp_path)[:2]
    assert (record.task, other.task, list(record.scores)) == ("likelihood", "knn", ["K=4", "K=1"])
    assert record.arrays["paths"].tolist() == other.arrays["paths"].tolist()
    assert set(record.arrays["groups"]) == {"p4", "p5"}
    pipeline, names = load(named), np.array(["bee", "ant", "cat"])
    paths = [str(table / path) for path in record.arrays["paths"].tolist()]
    best = [names[pipeline.classify(paths, orders=k).log_prob.argmax(1)] for k in (4, 1)]
    assert record.arrays["predicted"].tolist() == best[0].tolist()
    assert record.scores["K=4"].value == pytest.approx((best[0] == record.arrays["truth"]).mean())
    assert record.arrays["runs K=1"].shape == (4, len(paths))
    assert record.arrays["runs K=1"][0].tolist() == (best[1] == record.arrays["truth"]).tolist()
    text = (tmp_path / "table.md").read_text()
    assert "| likelihood | K=4 | K=1 |" in text
    assert "| knn |" in text
    assert cli.main([*command, "--orders", "4", "--race", "--beside", *FAST]) == 0
    assert "| likelihood | K=4 |" in (tmp_path / "table.md").read_text()


def test_likelihood_says_what_it_needs(model, named, table, tmp_path, capsys):
    command = ["probe", "likelihood", str(named), str(table), "-o", str(tmp_path), *FAST]
    for more, says in (
        (["--orders", "0"], "at least one order, got 0"),
        (["--beside", "--baselines"], "for the probes of --beside"),
        (["--recipe", "mae"], "leave them out"),
    ):
        assert cli.main([*command, *more]) == 1
        assert says in capsys.readouterr().err
    assert cli.main(["probe", "likelihood", str(model), str(table), "-o", str(tmp_path), *FAST]) == 1
    assert "the class ant of the data is none of the model's" in capsys.readouterr().err
