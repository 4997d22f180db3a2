"""Correspondence and segmentation from the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from probing import probe
from records import load_all

from randfeat.commands.probe.pictures import placement, visible_part
from randfeat.features.opening import open_encoder

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
    assert ours.name == "small/tiny"
    assert {one.name: one.is_baseline for one in others} == dict.fromkeys(
        (
            "random:small/tiny",
            "patch pixels",
            "HOG cells",
            "cell colours",
            "tokens of small/tiny",
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
    assert "| PCK@0.5 |" in (tmp_path / "table.md").read_text().splitlines()[0]


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
    found = visible_part(image, placement(encoder), expected.shape[:2])
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


@pytest.mark.slow
def test_segmentation_of_a_folder_like_voc(model, tmp_path, capsys):
    voc = shapes(tmp_path / "voc", 40)
    more = ["--baselines", "--spec", "raster/causal/token/L1/none/mean", "raster/causal/token/L2/none/mean"]
    assert probe("segmentation", model, voc, out=tmp_path / "out", more=more) == 0
    records = {record.name: record for record in load_all(tmp_path / "out")}
    assert {name for name, record in records.items() if not record.is_baseline} == {"small/tiny"}
    assert set(records) == {
        "small/tiny",
        "random:small/tiny",
        "patch pixels",
        "HOG cells",
        "cell colours",
        "tokens of small/tiny",
        "the same place",
        "chance (noise)",
    }
    ours, pixels, chance = (records[name] for name in ("small/tiny", "patch pixels", "chance (noise)"))
    assert set(ours.per_class) == {"0", "1", "2"}
    assert len(ours.search) == 6
    assert ours.chosen in ours.search
    assert ours.scores["mIoU"].n == 20
    assert set(ours.fingerprints) == {"data", "features"}
    assert pixels.scores["mIoU"].low > chance.scores["mIoU"].high + 0.1
    assert pixels.per_class["1"] > 0.4  # on six cells for each picture
    table = (tmp_path / "out" / "table.md").read_text()
    assert "| Segmentation | mIoU |" in table
    assert "p (Holm)" in table
    assert table in capsys.readouterr().out


def test_all_models_are_scored_on_the_pixels_that_all_see(model, tmp_path):
    """timm's network sees the middle 7/8 of a picture's shorter side squared, ours three halves as wide."""
    pair = shapes(tmp_path / "pair", 12, "pair")
    more = ["--images", "photos/train", "photos/val", "--label-maps", "labels/train", "labels/val", "--no-search"]
    scored = []
    for number, models in enumerate(([model], [model, "random:timm:test_vit"])):
        out = tmp_path / str(number)
        assert probe("segmentation", *models, pair, out=out, more=more) == 0
        scored.append(next(record for record in load_all(out) if record.name.startswith("small/tiny")))
    alone, beside = (record.arrays["either"].sum() for record in scored)
    assert 6 * 22 * 36 <= alone <= 2 * 6 * 22 * 36  # each pixel counts once or, if it is wrong, twice
    assert beside <= 2 * 6 * 21 * 21


@pytest.mark.parametrize(
    ("what", "says"),
    [
        (["nowhere"], "there is no folder nowhere"),
        (["{voc}", "--split", "train", "test"], "holds neither ImageSets/Segmentation/test.txt nor annotations/test/"),
        (["{voc}", "--images", "a", "b"], "--images and --label-maps go together"),
        (["{voc}", "--images", "a", "b", "--label-maps", "c", "d"], "there are no label maps"),
        (["{voc}", "--ignore-label", "0"], "--ignore-label is for --label-maps"),
        (["{voc}", "--spec", "raster/causal/token/L1/mean/mean"], "gives no dense map: choose the pool none"),
    ],
)
def test_segmentation_says_what_is_wrong(what, says, model, tmp_path, capsys):
    voc = shapes(tmp_path / "voc", 4)
    assert probe("segmentation", model, *(word.format(voc=voc) for word in what), out=tmp_path / "out") == 1
    assert says in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.json"))
