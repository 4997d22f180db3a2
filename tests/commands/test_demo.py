"""The demo from end to end, with very little training: every part runs, and the record says what it should."""

from __future__ import annotations

import json
import re

import pytest

import randfeat
from randfeat.commands.demo import trained
from randfeat.data.builtin import digits
from randfeat.data.sources import open_source


@pytest.fixture(scope="module")
def record(demo):
    return json.loads((demo / "report.json").read_text())


@pytest.mark.slow
class TestDemo:
    def test_the_record_has_every_number_with_its_interval(self, record):
        wanted = [
            f"likelihood.{model}.{k}.top1" for model in ("randar", "arpg") for k in ("k1", "k16")
        ] + [
            f"{measure}.{source}.top1"
            for measure in ("linear", "knn", "fewshot5")
            for source in ("best", "raster_control", "pixels", "pca", "patch_counts", "random_weights")
        ] + ["svm.pixels.top1", "retrieval.best.map_at_r"] + [
            f"samples.{what}" for what in ("agreement", "recall", "nearest_train_ratio")
        ]  # fmt: skip
        for path in wanted:
            node = record
            for key in path.split("."):
                node = node[key]
            assert set(node) == {"value", "low", "high", "n"}, path
            assert node["low"] <= node["value"] <= node["high"], path
        for measure in ("linear", "knn", "fewshot5", "svm"):
            assert record[measure]["pixels"]["top1"]["n"] == 640
        assert record["linear"]["pixels"]["top1"]["value"] > 0.9  # the baselines are real whatever the training
        assert record["settings"]["versions"]["torch"]
        assert record["settings"]["training"]["randar_free"]["recipe"]["labels"] is False

    def test_the_page_is_self_contained(self, demo):
        page = (demo / "report.html").read_text()
        sources = re.findall(r'(?:src|href)="([^"]{0,30})', page)
        assert len(sources) >= 8
        assert all(source.startswith("data:image/") for source in sources)
        assert "://" not in page  # base64 may spell http

    def test_the_digits_are_left_as_files(self, demo):
        source = open_source(demo / "digits", "test")
        assert (len(source), sorted(set(source.labels))) == (640, list(range(10)))

    def test_the_models_open_and_work(self, demo):
        images = digits.load_digits().images[:4]
        for name in trained.MODELS:
            model = randfeat.load(demo / "models" / name)
            assert model.features(images, "bidirectional/causal/token/L3/mean/concat").shape == (4, 128)
            assert model.generator.num_classes == (0 if name.endswith("_free") else 10)

    def test_a_second_run_keeps_the_trained_models(self, demo):
        weights = [demo / "models" / name / "model.safetensors" for name in trained.MODELS]
        before = [path.stat().st_mtime_ns for path in weights]
        recipes = {name: trained.shortened(trained.read_recipe(f"digits_{name}"), 0.01) for name in trained.MODELS}
        model = randfeat.load(demo / "models" / "randar")
        trained.train_all(recipes, digits.load_digits(), model.tokenizer, demo / "models")
        assert [path.stat().st_mtime_ns for path in weights] == before


def test_the_writers_are_the_fourteen_of_the_mooc():
    data = digits.load_digits()
    assert len(data) == 1797
    assert [len(data.written_by(range(w, w + 1))) for w in (0, 6, 13)] == [130, 139, 130]
    assert len(data.written_by(digits.FIT)) == 915
    assert len(data.written_by(digits.FIT, digits.VALIDATION)) == 1157
    assert len(data.written_by(digits.TEST)) == 640


def test_coverage_by_hand():
    import numpy as np

    from randfeat.commands.demo.generation import coverage

    real = np.array([[0.0], [1.0], [2.0], [10.0]])
    # radii to the first other real one: 1, 1, 1, 8
    assert coverage(real, np.array([[0.9], [30.0]]), k=1).tolist() == [True, True, False, False]
    assert coverage(real, np.array([[17.5]]), k=1).tolist() == [False, False, False, True]
