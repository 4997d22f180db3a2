"""Extraction by Ray: the shards of `extract`, an actor that is killed, a driver that is killed, and no Ray."""

from __future__ import annotations

import builtins
import subprocess
import sys
import textwrap
from pathlib import Path

import damaged
import numpy as np
import pytest
from PIL import Image

from randfeat.cli import main
from randfeat.features import ray_engine
from randfeat.features.extract import Shards
from randfeat.features.store import FeatureStore

COUNT = 30


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for number in range(COUNT):
        Image.fromarray(damaged.noise(9, 12, seed=number)).save(folder / f"{number:02}.png")
    (folder / "07.png").write_bytes(b"a note")
    return str(folder)


def without_ray(monkeypatch):
    real = builtins.__import__

    def refuse(name, *rest, **named):
        if name.startswith("ray"):
            raise ModuleNotFoundError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)


def test_without_ray_the_command_says_how_to_get_it(model, photos, tmp_path, monkeypatch, capsys):
    without_ray(monkeypatch)
    assert main(["extract", model, photos, "-o", str(tmp_path / "out"), "--engine", "ray", "--device", "cpu"]) == 1
    assert "pip install 'randfeat[ray]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_actor_makes_the_shards_of_extract(model, photos, tmp_path, monkeypatch):
    def here(*arguments, **named):
        def make(shards: Shards, missing: list[int]) -> None:
            model, specs, device, dtype, data, batch_size = arguments[:6]
            actor = ray_engine.ShardMaker(model, specs, device, dtype, data, batch_size, shards, str(tmp_path))
            for shard in missing:
                assert actor({"shard": np.array([shard])})["images"] == [len(shards.numbers(shard))]

        return make

    monkeypatch.chdir(tmp_path)
    common = ["extract", model, photos, "--device", "cpu", "--workers", "0"]
    assert main([*common, "-o", "local"]) == 3
    monkeypatch.setattr(ray_engine, "by_ray", here)
    assert main([*common, "-o", "remote", "--engine", "ray"]) == 3
    for file in ("features.npy", "rows.parquet", "skipped.csv"):
        assert (tmp_path / "local" / file).read_bytes() == (tmp_path / "remote" / file).read_bytes()


KILLED = """
import os, sys
from pathlib import Path
from randfeat.data.sources import open_source
from randfeat.features.extract import extract
from randfeat.features.opening import open_encoder
from randfeat.features.ray_engine import ShardMaker, by_ray

model, photos, out, how = sys.argv[1:5]
size, deadly = int(sys.argv[5]), int(sys.argv[6])
marker = Path(out + ".killed")

class Dying(ShardMaker):
    def __call__(self, batch):
        with open(out + ".begun", "a") as file:
            file.writelines(f"{shard} " for shard in batch["shard"])
        if how == "actor" and deadly in batch["shard"] and not marker.exists():
            marker.touch()
            os._exit(9)
        if how == "driver" and deadly in batch["shard"] and not marker.exists():
            marker.touch()
            os.kill(self.driver, 9)
            os._exit(9)
        return super().__call__(batch)

Dying.driver = os.getpid()

data = (photos, None, None, None)
made = by_ray(model, [], "cpu", "float32", data, 64, 2, Dying)
store = extract(open_encoder(model), open_source(photos), out, 64, 0, size, made)
assert marker.exists(), "nothing was killed"
print(len(store), "images")
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["actor", "driver"])
def test_a_kill_loses_no_image_and_no_finished_shard(how, model, photos, tmp_path):
    pytest.importorskip("ray", reason="ray is not installed: pip install 'randfeat[ray]'")
    script, out = tmp_path / "killed.py", tmp_path / "out"
    script.write_text(textwrap.dedent(KILLED))
    command = [sys.executable, str(script), model, photos, str(out), how, "5", "4"]
    made = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if how == "driver":
        assert made.returncode == -9
        done = {int(file.stem) for file in out.glob("unfinished/*.safetensors")}
        assert done
        begun = Path(f"{out}.begun")
        begun.unlink()
        made = subprocess.run(command, capture_output=True, text=True, timeout=600)
        again = {int(shard) for shard in begun.read_text().split()}
        assert 4 in again
        assert not again & done
    assert made.returncode == 0, made.stderr[-4000:]
    assert main(["extract", model, photos, "-o", str(tmp_path / "local"), "--device", "cpu", "--workers", "0"]) == 3
    ours, theirs = FeatureStore.open(out), FeatureStore.open(tmp_path / "local")
    assert ours.paths == theirs.paths
    assert len(ours) == COUNT - 1
    np.testing.assert_allclose(ours.as_numpy(), theirs.as_numpy(), atol=1e-5)
    assert ours.skipped == theirs.skipped
