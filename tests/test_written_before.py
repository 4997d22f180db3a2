"""Files written before the rooms of the house were moved (at commit c73c273) open, go on and give the same numbers.

`written_before/` holds what that commit wrote of 24 pictures of 4 x 6 pixels, with one thread: tokens, two runs stopped
at their first checkpoint and the models that they came to, a feature store, an index, and expected.npz with what it
then read out of them.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import randfeat
from randfeat import cli
from randfeat.data.token_store import TokenStore

HERE = Path(__file__).parent / "written_before"
EXPECTED = np.load(HERE / "expected.npz")
PHOTOS = sorted((HERE / "photos").rglob("*.png"))
SPECS = ("raster/full/query/L-1/mean/mean", "random*2/causal/token/L1,L2/grid2/concat")
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture
def written(tmp_path, monkeypatch):
    """A copy to write into; its paths are those that the runs were given."""
    shutil.copytree(HERE, tmp_path / "written")
    monkeypatch.chdir(tmp_path)
    return Path("written")


@pytest.mark.parametrize("name", ["arpg", "randar"])
def test_models_read_sample_and_judge_the_same(name):
    model = randfeat.load(HERE / "models" / name)
    for spec in SPECS:
        np.testing.assert_allclose(model.features(PHOTOS, spec), EXPECTED[f"{name}.features.{spec}"], **CLOSE)
    np.testing.assert_allclose(model.sample([0, 1], seed=0).numpy(), EXPECTED[f"{name}.sample"], **CLOSE)
    log_prob = model.log_prob(PHOTOS[:4], [0] * 4, orders=2).mean
    np.testing.assert_allclose(log_prob.numpy(), EXPECTED[f"{name}.log_prob"], **CLOSE)


@pytest.mark.parametrize("name", ["arpg", "randar"])
def test_a_run_goes_on_from_its_checkpoint_to_the_same_weights(name, written):
    given = ["--config", f"written/{name}.yaml", "--data", "written/tokens", "-o", f"written/runs/{name}"]
    assert cli.main(["pretrain", *given, "--workers", "0", "--device", "cpu"]) == 0
    found = load_file(written / "runs" / name / "model" / "model.safetensors")
    expected = load_file(written / "models" / name / "model.safetensors")
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-5)


def test_tokens_open():
    store = TokenStore.open(HERE / "tokens")
    np.testing.assert_array_equal(np.asarray(store.tokens), EXPECTED["tokens"])


def test_the_same_tokens_are_made_again(written):
    """A finished cache is recognised by its settings, and left as it is."""
    before = (written / "tokens" / "tokens.npy").stat().st_mtime_ns
    patches = ["--tokenizer", "patch", "--patch", "2", "--size", "4", "6", "--vocab", "7"]
    given = ["written/photos", "-o", "written/tokens", *patches, "--workers", "0", "--device", "cpu"]
    assert cli.main(["tokenize", *given]) == 0
    assert (written / "tokens" / "tokens.npy").stat().st_mtime_ns == before


def test_features_open():
    store = randfeat.FeatureStore.open(HERE / "features")
    np.testing.assert_array_equal(store.as_numpy(), EXPECTED["store.features"])
    assert [Path(path).name for path in store.paths] == [path.name for path in PHOTOS]


def test_an_index_finds_the_same():
    index = randfeat.Index.open(HERE / "photos.index")
    found = index.search(EXPECTED["store.features"][:3], k=5)
    np.testing.assert_array_equal([[match.id for match in row] for row in found], EXPECTED["index.ids"])
    scores = [[match.score for match in row] for row in found]
    np.testing.assert_allclose(scores, EXPECTED["index.scores"], **CLOSE)


def test_an_index_takes_more_and_loses_some(written):
    index = randfeat.Index.open(written / "photos.index")
    new = index.add(np.eye(3, 16, dtype=np.float32), ["a", "b", "c"])
    assert list(new) == [24, 25, 26]
    index.remove([0])
    assert len(randfeat.Index.open(written / "photos.index")) == 26
