"""`randfeat export`: what it writes and says, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from pipelines import make_sampler

import randfeat
from randfeat import cli


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tiny"
    make_sampler().save(path)
    return path


def test_a_model_is_exported_at_a_spec(model, tmp_path, capsys):
    path, spec = tmp_path / "made" / "reader.pt2", "raster/causal/query/L1/mean/mean"
    assert cli.main(["export", str(model), "-o", str(path), "--spec", spec]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{path}: images (B, 3, 4, 6) in [0, 1] -> features at {spec}\n  within ")
    images = torch.rand(2, 3, 4, 6)
    found = torch.export.load(path).module()(images).detach()
    expected = torch.from_numpy(randfeat.load(model).features(images, spec))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["timm:vit_tiny_patch16_224", "-o", "reader.pt2"], "is of another library"),
        (["{model}", "-o", "reader.bin"], "the ending of reader.bin says the form"),
        (["{model}", "-o", "reader.pt2", "--spec", "raster/causal"], "has 2 parts"),
    ],
)
def test_errors_are_one_sentence(words, said, model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["export", *(word.format(model=model) for word in words)]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
