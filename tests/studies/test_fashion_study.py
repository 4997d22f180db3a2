"""The study of Fashion-MNIST on a few enlarged digits: its parts, its controls, and all of it by its commands."""

from __future__ import annotations

import csv
import importlib
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from randfeat.pretrain import AgreementConfig

from randfeat import Pipeline
from randfeat.data.builtin import make_digits
from randfeat.inference import likelihood as likelihoods
from randfeat.inference.successive_halving import SuccessiveHalving
from randfeat.models import create
from randfeat.tokenizers import PatchTokenizer

TRAIN, VALIDATION, SEARCHED, TEST = 300, 60, 160, 80


def module(name):
    return importlib.import_module(f"studies.fashion.{name}")


@pytest.fixture(scope="module")
def pictures():
    """Digits on 28 x 28 pixels, mixed: uint8 (n, 28, 28), and their labels."""
    made = make_digits()
    rows = np.random.default_rng(0).permutation(len(made))[: TRAIN + TEST]
    images = np.kron(made.images[rows], np.ones((3, 3), np.uint8))
    return np.pad(images, ((0, 0), (2, 2), (2, 2))), made.labels[rows]


@pytest.fixture
def data(pictures):
    return divided(pictures)


def divided(pictures, rehearse=False):
    names = tuple(map(str, range(10)))
    return module("images").divide(*pictures, names, TRAIN, VALIDATION, SEARCHED, rehearse)


@pytest.fixture(scope="module")
def tokenizer(pictures):
    return PatchTokenizer.fit(torch.from_numpy(pictures[0][:100]).unsqueeze(1).float() / 255, 16, 4)


def pipeline(tokenizer, name, classes, seed=0):
    """A network with weights that tell classes and images apart: fresh ones' heads are zero."""
    torch.manual_seed(seed)
    depth = 2 if name == "arpg" else 4
    shape = dict(grid=(7, 7), vocab_size=16, num_classes=classes, embed_dim=16, depth=depth, num_heads=2)
    made = create(name, **shape)
    for parameter in made.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(0, 0.2)
    return Pipeline(tokenizer, made.eval())


# parts ----------------------------------------------------------------------------------------------------------------


def test_rows_do_not_mix(pictures, data):
    assert not set(data.fit) & set(data.chosen)
    assert set(data.searched) < set(data.fit)
    assert {*data.fit, *data.chosen} == {*data.train} == {*range(TRAIN)}
    assert [*data.test] == [*range(TRAIN, TRAIN + TEST)]
    rehearsed = divided(pictures, rehearse=True)
    assert [*rehearsed.test] == [*data.chosen]
    assert len(rehearsed.images) == TRAIN  # no test image can be read
    assert not {*rehearsed.test} & {*rehearsed.train}


def test_features_are_made_once_for_each_key(data, tmp_path):
    read = []

    class Reader(module("features").Reader):
        variants = ("sum", "first")

        def read(self, images, variants):
            read.append((len(images), *variants))
            made = {"sum": images.sum((1, 2), keepdims=True)[:, 0] / 1000, "first": images[:, 14, 10:14]}
            return {name: made[name].astype(np.float32) for name in variants}

    own = Reader()
    features = module("features").Features("own", own, data.images, tmp_path)
    rows = data.test[::-1]
    found = features.of(["sum", "first"], rows, "test")
    assert found["first"].dtype == np.float16
    np.testing.assert_array_equal(found["first"], data.images[rows, 14, 10:14])
    assert features.of(["sum"], rows, "test")["sum"].shape == (TEST, 1)
    assert read == [(TEST, "sum", "first")]
    own.key = "2"
    module("features").Features("own", own, data.images, tmp_path).of(["sum"], rows, "test")
    assert len(read) == 2


@pytest.mark.parametrize("name", ["linear", "knn", "fewshot5", "retrieval"])
def test_the_variant_that_tells_classes_apart_is_chosen(name):
    probing = module("probing")
    rng, y = np.random.default_rng(0), np.arange(120) % 10
    noise, telling = rng.normal(size=(120, 12)), np.eye(12)[y] + 0.05 * rng.normal(size=(120, 12))
    variants = {
        "noise": lambda: (noise[:80].astype(np.float16), noise[80:].astype(np.float16)),
        "telling": lambda: (telling[:80].astype(np.float16), telling[80:].astype(np.float16)),
    }
    (measure,) = (one for one in probing.MEASURES if one.name == name)
    choice = measure.search(variants, y[:80], y[80:])
    assert choice.variant == "telling"
    assert choice.tried["noise"] < 0.5 < choice.accuracy
    right = measure.score(choice.setting, telling[:80], y[:80], telling[80:], y[80:])
    assert right.shape[-1] == 40
    assert right.mean() > 0.9


def test_triangles_are_how_much_nearer_than_the_mean_a_centre_is():
    coates = module("coates")
    patches = torch.randn(2, 16, 5)  # 4 x 4 places
    layer = coates.Layer(torch.randn(3, 5), torch.randn(5), torch.randn(5, 5))
    x = (patches - layer.mean) @ layer.matrix
    away = (x[:, :, None] - layer.centres).norm(dim=3)
    maps = (away.mean(2, keepdim=True) - away).clamp(min=0).view(2, 4, 4, 3)
    corner = maps[:, :2, 2:].mean((1, 2))
    found = coates._pooled(patches, layer, 2).view(2, 3, 2, 2)
    torch.testing.assert_close(found[:, :, 0, 1], corner, atol=1e-4, rtol=1e-4)


def test_patches_are_learned_from_the_images_given(data):
    made = module("coates").KMeansPatches(data.images[data.fit], sizes=((8, 2), (6, 3)))
    found = made.read(data.images[:7], made.variants)
    assert [x.shape for x in found.values()] == [(7, 32), (7, 54)]
    again = (
        module("coates").KMeansPatches(data.images[data.fit], sizes=((8, 2),)).read(data.images[3:4], made.variants[:1])
    )
    np.testing.assert_allclose(again[made.variants[0]], found[made.variants[0]][3:4], atol=1e-4)


def test_the_judge_learns_and_reads_mirror_images_alike(data, tmp_path, monkeypatch):
    judge = module("judge")
    monkeypatch.setattr(judge, "BATCH", 32)
    made = judge.opened(tmp_path / "judge.safetensors", data.images[data.fit], data.labels[data.fit], epochs=6)
    images = torch.from_numpy(data.images[data.test]).unsqueeze(1).float() / 255
    classes, features = made.read(images)
    assert (classes == data.labels[data.test]).mean() > 0.6
    assert features.shape == (TEST, judge.FEATURES)
    np.testing.assert_allclose(made.read(images.flip(3))[1], features, atol=1e-4)
    monkeypatch.setattr(judge, "train", None)  # it is not trained again
    again = judge.opened(tmp_path / "judge.safetensors", data.images[data.fit], data.labels[data.fit])
    np.testing.assert_array_equal(again.classes(images), classes)


@pytest.mark.parametrize(("right", "met"), [(94, "yes"), (93, "yes"), (92, "no")])
def test_the_judges_accuracy_is_a_bar(tmp_path, right, met):
    scores = {"right": np.arange(100) < right}
    module("units").keep(tmp_path / "judge" / "judge.json", {"key": "1"}, scores)
    rows = [*module("tables").bars(module("results").Results(tmp_path))]
    ((title, bar, aim, measured, found, _),) = rows[1:]
    assert (title, bar, aim) == ("judge of samples, on test images, %", "93.0", "")
    assert measured.startswith(f"{right}.0 ")
    assert found == met


def test_only_a_model_that_is_missing_is_left_out(data, tokenizer, tmp_path, capsys):
    main, controls = module("__main__"), module("controls")
    main.attempt(lambda: main.model("arpg", tmp_path))
    main.attempt(lambda: controls.opened("masked", tokenizer, tmp_path / "controls"))
    told = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in told] == ["left out"] * 2
    assert "train fashion_arpg_free first" in told[0]
    assert "run `python -m studies.fashion controls` first" in told[1]
    (tmp_path / "fashion_arpg_free" / "model").mkdir(parents=True)  # a damaged one, not a missing one
    with pytest.raises(FileNotFoundError, match="is no model directory: it has no config"):
        main.attempt(lambda: main.model("arpg", tmp_path))


def test_moved_images_are_crops_or_mirrored_crops():
    judge = module("judge")
    image = torch.rand(1, 1, 9, 9)
    padded = torch.nn.functional.pad(image, (judge.SHIFT,) * 4)[0, 0]
    places = range(2 * judge.SHIFT + 1)
    crops = [padded[y : y + 9, x : x + 9] for y in places for x in places]
    possible = [*crops, *(crop.flip(1) for crop in crops)]
    found = judge.moved(image.expand(60, -1, -1, -1), torch.Generator().manual_seed(0))
    which = [next(i for i, one in enumerate(possible) if torch.equal(one, made[0])) for made in found]
    assert len(set(which)) > 20
    assert min(which) < len(crops) <= max(which)


def test_likelihood_agrees_with_reading_everything(data, tokenizer, monkeypatch):
    likelihood = module("likelihood")
    model = pipeline(tokenizer, "arpg", 10)
    images = data.images[data.test[:12]]
    rung = module("likelihood").Rung
    monkeypatch.setattr(likelihood, "RUNGS", (rung(1), rung(4, 1.0), rung(np.inf, 1.0)))
    monkeypatch.setattr(likelihood, "SuccessiveHalving", lambda rungs: SuccessiveHalving(rungs, np.inf))
    found = likelihood.classify(model, images)
    pixels = torch.from_numpy(images).unsqueeze(1).float() / 255
    tokens = tokenizer.encode(pixels).flatten(1)
    each = likelihoods.class_log_prob(model.generator, tokens, None, 16)
    for count in (1, 4, 16):
        np.testing.assert_array_equal(found[f"k{count}"], each[..., :count].mean(2).argmax(1))
    assert (found["passes"] == 160).all()
    copies = likelihood.of_copies(pixels, 4)
    assert copies.shape == (12, 8, 1, 28, 28)
    torch.testing.assert_close(copies[:, 7], copies[:, 0].flip(3))
    coded = tokenizer.encode(copies.flatten(0, 1)).flatten(1).unflatten(0, (12, 8))
    classes = torch.arange(10).expand(12, -1)
    by_copy = likelihood.copy_log_prob(model.generator, coded, classes, 16)
    fifth = likelihoods.class_log_prob(model.generator, coded[:, 5], None, 16)
    torch.testing.assert_close(by_copy[..., 5], fifth[..., 5])
    torch.testing.assert_close(by_copy[..., 13], fifth[..., 13])
    np.testing.assert_array_equal(found["k16_copies"], by_copy.mean(2).argmax(1))


# commands -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def study(monkeypatch, tmp_path, pictures, tokenizer, capsys):
    """Runs a module of the study with its arguments, small: what it prints."""
    monkeypatch.setattr(module("images"), "read", lambda rehearse=False: divided(pictures, rehearse))
    probing, samples = module("probing"), module("samples")
    for name, value in dict(
        CS=(0.01, 0.1), DRAWS=3, SEARCHED_DRAWS=2, SHOT_CS=(30.0,), EPOCHS=1, RATES=(3e-3,)
    ).items():
        monkeypatch.setattr(probing, name, value)
    monkeypatch.setattr(probing.GaussianSVM, "cs", (10.0,))
    for name, value in dict(
        EACH=6, EACH_TRIED=3, SHOWN=2, GUIDANCES=(1.0, 2.0), SWEEPS=(0,), TEMPERATURES=(0.8,)
    ).items():
        monkeypatch.setattr(samples, name, value)
    monkeypatch.setattr(module("inpainting"), "MOST", 10)
    monkeypatch.setattr(module("judge"), "opened", few_epochs(module("judge").opened))
    monkeypatch.setattr(module("results"), "DRAWS", 200)
    readers = module("readers")
    monkeypatch.setattr(readers, "SPECS", {name: specs[::4] for name, specs in readers.SPECS.items()})
    monkeypatch.setattr(readers, "KMeansPatches", lambda images: module("coates").KMeansPatches(images, ((8, 2),)))
    monkeypatch.setattr(module("controls"), "CROPS", 2)
    recipe = module("controls").read_recipe("digits_arpg")
    size = replace(recipe.size, embed_dim=16, depth=1, num_heads=2, ffn_dim=24)
    recipe = replace(recipe, size=size, agreement=AgreementConfig(weight=0.3, width=8, dim=4))
    phases = (replace(recipe, agreement=AgreementConfig()), recipe)
    monkeypatch.setattr(module("controls"), "PHASES", (0, 1))
    monkeypatch.setattr(module("controls"), "read_recipe", lambda name, number: phases[number])
    for number, (name, classes) in enumerate([("arpg", 0), ("randar", 0), ("arpg", 10), ("randar", 10)]):
        folder = tmp_path / "runs" / f"fashion_{name}{'' if classes else '_free'}"
        pipeline(tokenizer, name, classes, number).save(folder / "model")
    pipeline(tokenizer, "arpg", 0, 4).save(tmp_path / "runs" / "fashion_arpg_14x14_free" / "model")

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        module(name).main()
        return capsys.readouterr().out

    return run


def few_epochs(opened):
    return lambda path, images, labels: opened(path, images, labels, epochs=1)


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return [*csv.reader(file)]


@pytest.mark.slow
def test_readers_are_measured_once_and_tabled(study, tmp_path):
    work, found = tmp_path / "work", tmp_path / "found"
    where = work, "--runs", tmp_path / "runs", "--found", found, "--parts", "readers"
    study("__main__", "controls", *where[:3], "--steps", 3)
    told = study("__main__", *where)
    assert "left out: there is no" in told  # the raster control was not trained
    assert "fashion_raster_free" in told
    before = {path: path.stat().st_mtime_ns for path in found.rglob("*.json")}
    readers = {"pixels", "pca", "hog", "patch_counts", "coates_ng", "arpg", "arpg_14x14", "randar", "random_weights"}
    readers |= {"masked", "pixel_autoencoder", "svm"}
    assert {path.parent.name for path in before} == readers
    study("__main__", *where)
    assert {path: path.stat().st_mtime_ns for path in found.rglob("*.json")} == before
    record = json.loads((found / "arpg" / "linear.json").read_text())
    assert record["variant"] in module("readers").SPECS["arpg"]
    assert (record["train"], record["test"]) == (TRAIN, TEST)
    study("tables", tmp_path / "docs", "--found", found)
    numbers = json.loads((tmp_path / "docs" / "results" / "fashion.json").read_text())
    for measure in ("linear", "knn", "fewshot5"):
        for name in ("best", "hog", "pixels", "pca", "random_weights", "masked"):
            one = numbers[measure][name]["top1"]
            assert one["low"] <= one["value"] <= one["high"]
            assert one["n"] == TEST
    mean = json.loads((found / "hog" / "linear.json").read_text())["mean"]
    assert numbers["linear"]["hog"]["top1"]["value"] == pytest.approx(mean)
    assert numbers["seconds"]["hog/linear"] > 0
    features = rows_of(tmp_path / "docs" / "results" / "fashion_features.csv")
    assert {row[0] for row in features[1:]} == {module("results").TITLES[name] for name in readers}
    assert len(rows_of(tmp_path / "docs" / "results" / "fashion_bars.csv")) > 10


def test_generators_are_judged_once_and_tabled(study, tmp_path):
    found, parts = tmp_path / "found", ("judge", "likelihood", "samples", "inpainting")
    where = tmp_path / "work", "--runs", tmp_path / "runs", "--found", found, "--likely", 8, "--parts", *parts
    study("__main__", *where)
    before = {path: path.stat().st_mtime_ns for path in found.rglob("*.json")}
    assert {path.parent.name for path in before} == {*parts}
    assert study("__main__", *where) == ""
    assert {path: path.stat().st_mtime_ns for path in found.rglob("*.json")} == before
    study("tables", tmp_path / "docs", "--found", found)
    numbers = json.loads((tmp_path / "docs" / "results" / "fashion.json").read_text())
    assert set(numbers["likelihood"]["randar"]) == {"k1", "k4", "k16", "k4_copies", "k16_copies"}
    assert numbers["likelihood"]["arpg"]["k16"]["top1"]["n"] == 8
    assert numbers["samples"]["agreement"]["n"] == 60
    assert {"recall", "nearest_train_ratio", "frechet"} < set(numbers["samples"]["arpg"])
    assert numbers["samples"]["agreement"] == numbers["samples"][numbers["samples"]["best"]]["agreement"]
    names = [row[0] for row in rows_of(tmp_path / "docs" / "results" / "fashion_inpainting.csv")]
    assert {"whole image", "nearest of train", "ARPG, labels", "RandAR, label-free"} < {*names}
    assert (tmp_path / "docs" / "images" / "fashion_samples_arpg.png").exists()


def test_other_weights_are_scored_anew(study, tmp_path, tokenizer):
    where = tmp_path / "work", "--runs", tmp_path / "runs", "--found", tmp_path / "found"
    how = "--parts", "readers", "--readers", "arpg", "--measures", "knn"
    study("__main__", *where, *how)
    path = tmp_path / "found" / "arpg" / "knn.json"
    before = json.loads(path.read_text())
    pipeline(tokenizer, "arpg", 0, seed=9).save(tmp_path / "runs" / "fashion_arpg_free" / "model")
    study("__main__", *where, *how)
    after = json.loads(path.read_text())
    assert after["key"] != before["key"]
    assert after["tried"] != before["tried"]


def test_other_searches_are_made_anew(study, tmp_path, monkeypatch):
    where = tmp_path / "work", "--runs", tmp_path / "runs", "--found", tmp_path / "found"
    how = "--parts", "readers", "--readers", "pixels", "--measures", "knn"
    study("__main__", *where, *how)
    path = tmp_path / "found" / "pixels" / "knn.json"
    before = json.loads(path.read_text())
    assert study("__main__", *where, *how) == ""
    monkeypatch.setattr(module("probing"), "KS", (3,))
    study("__main__", *where, *how)
    after = json.loads(path.read_text())
    assert after["setting"]["k"] == 3
    assert (after["key"], after["search"] == before["search"]) == (before["key"], False)


def test_a_rehearsal_keeps_away_from_the_results(study, tmp_path, monkeypatch):
    monkeypatch.setattr(module("tables"), "FOUND", tmp_path / "never")
    how = "--parts", "readers", "--readers", "hog", "--measures", "linear", "--rehearse"
    study("__main__", tmp_path / "work", *how)
    assert not (tmp_path / "never").exists()
    record = json.loads((tmp_path / "work" / "rehearsal" / "found" / "hog" / "linear.json").read_text())
    assert record["test"] == VALIDATION


def test_controls_cost_as_much_as_arpg(study, tmp_path, tokenizer):
    controls = module("controls")
    study("__main__", "controls", tmp_path / "work", "--runs", tmp_path / "runs", "--steps", 40)
    plain, recipe = (controls.read_recipe("", number) for number in (0, 1))
    of_phases = [controls.flops("arpg", tokenizer, (7, 7), one) for one in (plain, recipe)]
    assert of_phases[1] > 2 * of_phases[0]
    for name in ("masked", "pixel_autoencoder"):
        told = json.loads((tmp_path / "work" / "controls" / name / "training.json").read_text())
        cost = told["flops_of_a_step"]
        assert cost["arpg"] == [each * told["training"]["batch_size"] for each in of_phases]
        assert told["training"]["steps"] * cost[name] == pytest.approx(40 * sum(cost["arpg"]), rel=0.1)
        network = controls.opened(name, tokenizer, tmp_path / "work" / "controls")
        fresh = controls.build(name, tokenizer, (7, 7), recipe.size)
        assert not torch.equal(next(network.parameters()), next(fresh.parameters()))


def test_controls_of_other_tokens_or_steps_are_refused(tokenizer, data, tmp_path):
    controls = module("controls")
    (tmp_path / "masked").mkdir()
    told = {"inputs": controls.made_with("masked", tokenizer), "steps_of_arpg": [40, 40]}
    (tmp_path / "masked" / controls.RECORD).write_text(json.dumps(told))
    assert controls.trained("masked", tokenizer, data, tmp_path, 40) == tmp_path / "masked"
    with pytest.raises(ValueError, match=r"other than \[41, 41\] steps"):
        controls.trained("masked", tokenizer, data, tmp_path, 41)
    other = PatchTokenizer(16, 4, 1)  # of a codebook of zeros
    with pytest.raises(ValueError, match="another tokenizer"):
        controls.opened("masked", other, tmp_path)


def test_a_patch_is_a_token(data):
    controls = module("controls")
    images = torch.from_numpy(data.images[:3]).unsqueeze(1).float() / 255
    cut = controls.patches(images).view(3, 7, 7, 4, 4)
    np.testing.assert_array_equal(cut[1, 2, 5], data.images[1, 8:12, 20:24])
