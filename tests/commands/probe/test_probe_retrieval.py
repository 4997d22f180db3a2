"""`randfeat probe retrieval --protocol`, on tiny folders with the layouts of the published data sets."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from probing import SPEC, picture, probe
from randfeat.probes import read_ground_truth, retrieval_scores, revisited_scores
from records import load_all
from scipy.io import savemat

from randfeat.features.opening import open_encoder

OTHER = "raster/causal/token/L1/mean/mean"
BOX = (2.0, 1.0, 11.0, 7.0)


def write(root, name, label, number):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(label, number).save(path, format="PNG")  # lossless, as features are computed again below


@pytest.fixture(scope="module")
def cub(tmp_path_factory):
    """Four classes of five images; the last two are test."""
    root = tmp_path_factory.mktemp("cub") / "CUB_200_2011"
    names = [f"{label + 1:03}.Bird/{number}.jpg" for label in range(4) for number in range(5)]
    for number, name in enumerate(names):
        write(root / "images", name, number // 5 % 2, number)
    (root / "images.txt").write_text("".join(f"{row + 1} {name}\n" for row, name in enumerate(names)))
    (root / "image_class_labels.txt").write_text("".join(f"{row + 1} {row // 5 + 1}\n" for row in range(20)))
    return root


@pytest.fixture(scope="module")
def cars(tmp_path_factory):
    root = tmp_path_factory.mktemp("cars") / "cars"
    annotations = np.zeros((1, 12), dtype=[("relative_im_path", object), ("class", object)])
    for number in range(12):
        annotations[0, number] = f"car_ims/{number:06}.jpg", np.uint8(number // 3 + 1)
        write(root, f"car_ims/{number:06}.jpg", number // 3 % 2, number)
    savemat(root / "cars_annos.mat", {"annotations": annotations})
    return root


@pytest.fixture(scope="module")
def sop(tmp_path_factory):
    root = tmp_path_factory.mktemp("sop") / "Stanford_Online_Products"
    for part, first in (("train", 0), ("test", 6)):
        lines = ["image_id class_id super_class_id path"]
        for number in range(first, first + 6):
            name = f"sofa_final/{number}.JPG"
            write(root, name, number // 3 % 2, number)
            lines.append(f"{number + 1} {number // 3 + 1} 1 {name}")
        (root / f"Ebay_{part}.txt").write_text("\n".join(lines))
    return root


@pytest.fixture(scope="module")
def oxford(tmp_path_factory):
    """Eight gallery images and three queries, the last of them without an easy positive."""
    root = tmp_path_factory.mktemp("oxford") / "roxford5k"
    gallery, queries = [f"place_{i:06}" for i in range(8)], [f"query_{i:06}" for i in range(3)]
    for number, name in enumerate((*gallery, *queries)):
        write(root, f"jpg/{name}.jpg", number % 3, number)
    entries = [
        {"bbx": list(BOX), "easy": [0, 3], "hard": [6], "junk": [1]},
        {"bbx": list(BOX), "easy": [4], "hard": [7], "junk": []},
        {"bbx": list(BOX), "easy": [], "hard": [2, 5], "junk": [0]},
    ]
    held = {"imlist": gallery, "qimlist": queries, "gnd": entries}
    (root / "gnd_roxford5k.pkl").write_bytes(pickle.dumps(held, protocol=2))
    return root


def test_the_second_half_of_the_birds_is_searched_among_itself(model, cub, tmp_path, capsys):
    more = ["--protocol", "cub", "--spec", SPEC, OTHER, "--baselines"]
    assert probe("retrieval", model, cub, out=tmp_path, more=more) == 0
    assert (tmp_path / "table.md").read_text() in capsys.readouterr().out
    assert "nearest test images" in (tmp_path / "report.html").read_text()
    ours, *others = load_all(tmp_path)
    assert ours.name == "small/tiny"
    assert {"random:small/tiny", "pixels", "HOG", "PCA of pixels", "colour histogram", "tokens of small/tiny"} < {
        one.name for one in others if one.is_baseline
    }
    assert list(ours.scores)[:1] == ["recall_at_1"]
    assert {f"recall_at_{k}" for k in (1, 2, 4, 8)} < set(ours.scores)
    assert ours.scores["recall_at_1"].n == 10
    assert set(ours.arrays["truth"]) == {3, 4}
    assert (ours.settings["protocol"], ours.settings["classes"]) == ("cub", 2)
    assert set(ours.search) == {SPEC, OTHER}
    assert ours.chosen == max(ours.search, key=lambda spec: ours.search[spec])
    paths, labels = [cub / path for path in ours.arrays["gallery"].tolist()], np.repeat([3, 4], 5)
    features = open_encoder(str(model), [ours.chosen]).features(paths)[0]
    expected = retrieval_scores(features, labels, ks=(1, 2, 4, 8))
    np.testing.assert_array_equal(ours.arrays["right recall_at_2"], expected["recall_at_2"])
    train = [cub / "images" / f"{label:03}.Bird" / f"{number}.jpg" for label in (1, 2) for number in range(5)]
    features = open_encoder(str(model), [OTHER]).features(train)[0]
    assert ours.search[OTHER] == pytest.approx(retrieval_scores(features, labels)["recall_at_1"].mean())


def test_train_is_left_alone_where_nothing_is_chosen(model, cars, tmp_path):
    more = ["--protocol", "cars", "--spec", SPEC]
    assert probe("retrieval", model, "random:timm:test_vit", cars, out=tmp_path, more=more) == 0
    records = load_all(tmp_path)
    assert [one.name for one in records if not one.is_baseline] == [f"small/tiny {SPEC}", "random:timm:test_vit pooled"]
    assert {one.scores["recall_at_8"].n for one in records} == {6}
    assert records[0].search == {}
    assert sum(1 for _ in (tmp_path / "stores").iterdir()) == 2  # of two models, the images of test


def test_products_have_lists_of_their_own(model, sop, tmp_path):
    assert probe("retrieval", model, sop, out=tmp_path, more=["--protocol", "sop", "--spec", SPEC]) == 0
    ours = load_all(tmp_path)[0]
    assert {f"recall_at_{k}" for k in (1, 10, 100, 1000)} < set(ours.scores)
    assert ours.arrays["paths"].tolist() == [f"sofa_final/{number}.JPG" for number in range(6, 12)]
    assert ours.scores["recall_at_10"].value == 1


def test_queries_of_oxford_are_cropped(model, oxford, tmp_path, capsys):
    more = ["--protocol", "roxford", "--spec", SPEC, "--baselines"]
    assert probe("retrieval", model, oxford, out=tmp_path / "out", more=more) == 0
    assert "| medium mAP |" in capsys.readouterr().out
    records = {one.name: one for one in load_all(tmp_path / "out")}
    assert {f"small/tiny {SPEC}", f"random:small/tiny {SPEC}", "pixels", "chance (noise)"} < set(records)
    ours = records[f"small/tiny {SPEC}"]
    truth, encoder = read_ground_truth(oxford / "gnd_roxford5k.pkl"), open_encoder(str(model), [SPEC])
    from randfeat.data.images import open_picture

    pictures = [open_picture(oxford / "jpg" / f"{query.name}.jpg").crop(BOX) for query in truth.queries]
    gallery = encoder.features([oxford / "jpg" / f"{name}.jpg" for name in truth.gallery])[0]
    expected = revisited_scores(encoder.features(pictures)[0], gallery, truth)
    for setup, of in expected.items():
        for metric, values in of.items():
            assert ours.scores[f"{setup} {metric}"].value == pytest.approx(values.mean()), (setup, metric)
    assert (ours.settings["queries"], ours.settings["gallery images"], ours.settings["distractors"]) == (3, 8, 0)
    write(tmp_path, "more/a.png", 2, 50)
    more = [*more[:4], "--distractors", tmp_path / "more"]
    assert probe("retrieval", model, oxford, out=tmp_path / "far", more=more) == 0
    far = load_all(tmp_path / "far")[0]
    assert far.settings["distractors"] == 1


@pytest.mark.parametrize(
    ("what", "says"),
    [
        (["{cub}", "--protocol", "cub"], "--protocol cub needs a MODEL, or several, and DATA"),
        (
            ["{model}", "{cub}", "--protocol", "cub", "--group", "parent"],
            "decides what is scored: leave --group",
        ),
        (["{model}", "{cub}", "--protocol", "cub", "--test-share", "0.5"], "leave --test-share out"),
        (["{model}", "{cub}", "--protocol", "cub", "--distractors", "x"], "are for --protocol roxford and rparis"),
        (["{model}", "{cub}", "--distractors", "x"], "are for --protocol roxford and rparis"),
        (["{stores}/train", "{cub}", "--protocol", "cub"], "is a feature store, and --protocol extracts its own"),
        (["{model}", "{cub}", "--protocol", "sop"], "Ebay_train.txt"),
        (["{model}", "{cub}", "--protocol", "rparis"], "give the folder that holds gnd_rparis6k.pkl and jpg/"),
        (["{model}", "{oxford}", "--protocol", "roxford", "--spec", SPEC, OTHER], "give one --spec"),
        (["{model}", "{oxford}", "--protocol", "roxford", "--distractors", "nowhere"], "there is no folder nowhere"),
    ],
)
def test_what_does_not_fit_a_protocol_is_said(what, says, model, cub, oxford, stores, tmp_path, capsys):
    given = [word.format(model=model, cub=cub, oxford=oxford, stores=stores) for word in what]
    assert probe("retrieval", *given, out=tmp_path / "out") == 1
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_image_that_is_missing_is_named(model, sop, tmp_path, capsys):
    import shutil

    shutil.copytree(sop, tmp_path / "sop")
    (tmp_path / "sop" / "sofa_final" / "7.JPG").unlink()
    assert probe("retrieval", model, tmp_path / "sop", out=tmp_path / "out", more=["--protocol", "sop"]) == 1
    assert "sofa_final/7.JPG cannot be read" in capsys.readouterr().err


def test_the_protocols_are_those_that_are_scored():
    from randfeat.probes.tasks.metric_learning import RECALLS

    from randfeat.commands.probe import options, retrieval

    assert (*RECALLS, *retrieval.GROUND_TRUTH) == options.PROTOCOLS
