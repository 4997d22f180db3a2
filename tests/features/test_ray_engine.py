"""Extraction by Ray: the shards of `extract`, an actor that is killed, a driver that is killed, and no Ray."""

from __future__ import annotations

import builtins
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import damaged
import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from pipelines import make_sampler

from randfeat import Pipeline
from randfeat.cli import main
from randfeat.data.builtin import load_fashion_part
from randfeat.features import ray_engine
from randfeat.features.extract import Shards
from randfeat.features.store import FeatureStore
from randfeat.tokenizers import PatchTokenizer

COUNT = 30
BAR = 3000


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for number in range(COUNT):
        Image.fromarray(damaged.noise(9, 12, seed=number)).save(folder / f"{number:02}.png")
    (folder / "07.png").write_bytes(b"a note")
    return str(folder)


@pytest.fixture
def not_finite(tmp_path):
    """Path of a model whose features are not finite."""
    broken = make_sampler()
    torch.nn.init.constant_(broken.generator.blocks[0].attn.qkv.weight, torch.nan)
    broken.save(tmp_path / "broken")
    return str(tmp_path / "broken")


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


@pytest.fixture
def in_this_process(monkeypatch, tmp_path):
    """Let one actor make the shards, in this process and without Ray."""

    def here(job, actors):
        def make(shards: Shards, missing: list[int]) -> None:
            actor = ray_engine.ShardMaker(job, shards, str(tmp_path))
            for shard in missing:
                found = actor({"shard": np.array([shard])})
                assert found["images"] == [len(shards.numbers(shard))]
                assert found["error"].tolist() == [None]

        return make

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ray_engine, "by_ray", here)


def test_an_actor_makes_the_shards_of_extract(model, photos, tmp_path, in_this_process):
    common = ["extract", model, photos, "--device", "cpu", "--workers", "0"]
    assert main([*common, "-o", "local"]) == 3
    assert main([*common, "-o", "remote", "--engine", "ray"]) == 3
    for file in ("features.npy", "rows.parquet", "skipped.csv"):
        assert (tmp_path / "local" / file).read_bytes() == (tmp_path / "remote" / file).read_bytes()


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_an_image_of_values_that_are_not_finite_is_skipped(engine, tmp_path, in_this_process):
    tokenizer = PatchTokenizer.fit(torch.rand(6, 2, 4, 6), 7, 2, value_range=(0.0, 1.0))
    Pipeline(tokenizer, tiny.model("randar", (2, 3))).save("model")
    Path("images").mkdir()
    for number, wrong in enumerate((None, np.nan, None, np.inf)):
        image = np.random.default_rng(number).random((5, 7, 2), np.float32)
        image[2, 3, 1] = image[2, 3, 1] if wrong is None else wrong
        np.save(f"images/{number}.npy", image)
    how = ["--engine", engine, "--device", "cpu", "--workers", "0"]
    assert main(["extract", "model", "images", "-o", "out", *how]) == 3
    store = FeatureStore.open("out")
    assert store.paths == ["0.npy", "2.npy"]
    assert store.skipped == [(f"{number}.npy", "values that are not finite") for number in (1, 3)]
    store.verify()


def test_an_error_of_an_actor_is_a_value(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = ray_engine.Job(model, [], "cpu", "float32", (str(tmp_path / "nothing"),), 64)
    (error,) = ray_engine.ShardMaker(job, Shards(tmp_path, COUNT, 5), str(tmp_path))({"shard": np.array([0])})["error"]
    assert isinstance(error, FileNotFoundError)
    assert "there is no" in str(error)


KILLED = """
import os, sys, time
from pathlib import Path
from randfeat.data.sources import open_source
from randfeat.features.extract import extract
from randfeat.features.opening import open_encoder
from randfeat.features.ray_engine import Job, ShardMaker, by_ray

model, photos, out, how = sys.argv[1:5]
size, deadly = int(sys.argv[5]), int(sys.argv[6])
marker = Path(out + ".killed")

class Dying(ShardMaker):
    def make(self, missing):
        with open(out + ".begun", "a") as file:
            file.writelines(f"{shard} " for shard in missing)
        if how in ("actor", "driver") and deadly in missing and not marker.exists():
            marker.touch()
            if how == "driver":
                os.kill(self.driver, 9)
            os.kill(os.getpid(), 9)
        if how == "full" and deadly in missing:
            raise OSError(28, "No space left on device")
        super().make(missing)

Dying.driver = os.getpid()

data = (photos, None, None, None)
made = by_ray(Job(model, [], "cpu", "float32", data, 64), 2, Dying)
start = time.perf_counter()
store = extract(open_encoder(model), open_source(photos), out, 64, 0, size, made)
assert marker.exists(), "nothing was killed"
print(f"{len(store):,} images by two actors, one killed, {time.perf_counter() - start:.1f} s")
"""


def killed(script, arguments):
    """Run the script with arguments, and return the process when it has ended."""
    pytest.importorskip("ray", reason="ray is not installed: pip install 'randfeat[ray]'")
    script.write_text(textwrap.dedent(KILLED))
    return subprocess.run(
        [sys.executable, str(script), *map(str, arguments)], capture_output=True, text=True, timeout=600
    )


@pytest.mark.slow
def test_a_killed_actor_loses_none_of_3000_images(tmp_path):
    photos, out, model = tmp_path / "photos", tmp_path / "out", "fashion-arpg-free"
    photos.mkdir()
    for number, image in enumerate(load_fashion_part().images[:BAR]):
        Image.fromarray(image).save(photos / f"{number:04}.png")
    made = killed(tmp_path / "killed.py", [model, photos, out, "actor", 100, 15])
    assert made.returncode == 0, made.stderr[-4000:]
    begun = Path(f"{out}.begun").read_text().split()
    assert sorted(set(begun), key=int) == [str(shard) for shard in range(BAR // 100)]
    assert begun.count("15") == 2
    start = time.perf_counter()
    assert main(["extract", model, str(photos), "-o", str(tmp_path / "local"), "--device", "cpu"]) == 0
    ours, theirs = FeatureStore.open(out), FeatureStore.open(tmp_path / "local")
    assert ours.paths == theirs.paths == [f"{number:04}.png" for number in range(BAR)]
    largest = np.abs(ours.as_numpy() - theirs.as_numpy()).max()
    print(f"{made.stdout.strip()}; without Ray {time.perf_counter() - start:.1f} s; differences to {largest:.1e}")
    assert largest <= 1e-5


@pytest.mark.slow
def test_a_killed_driver_loses_no_image_and_no_finished_shard(model, photos, tmp_path):
    script, out = tmp_path / "killed.py", tmp_path / "out"
    arguments = [model, photos, out, "driver", 5, 4]
    assert killed(script, arguments).returncode == -9
    done = {int(file.stem) for file in out.glob("unfinished/*.safetensors")}
    assert done
    begun = Path(f"{out}.begun")
    begun.unlink()
    made = killed(script, arguments)
    assert made.returncode == 0, made.stderr[-4000:]
    again = {int(shard) for shard in begun.read_text().split()}
    assert 4 in again
    assert not again & done
    assert main(["extract", model, photos, "-o", str(tmp_path / "local"), "--device", "cpu", "--workers", "0"]) == 3
    ours, theirs = FeatureStore.open(out), FeatureStore.open(tmp_path / "local")
    assert ours.paths == theirs.paths
    assert len(ours) == COUNT - 1
    np.testing.assert_allclose(ours.as_numpy(), theirs.as_numpy(), atol=1e-5)
    assert ours.skipped == theirs.skipped


@pytest.mark.slow
def test_an_actor_that_raises_ends_the_job_with_its_own_reason(model, not_finite, photos, tmp_path):
    made = killed(tmp_path / "full.py", [model, photos, tmp_path / "out", "full", 5, 4])
    assert made.returncode == 1
    assert made.stderr.splitlines()[-1] == "OSError: [Errno 28] No space left on device"  # the type, so its remedy, too
    extract = [sys.executable, "-m", "randfeat", "extract", not_finite, photos, "-o", str(tmp_path / "never")]
    made = subprocess.run([*extract, "--engine", "ray", "--device", "cpu"], capture_output=True, text=True, timeout=600)
    assert made.returncode == 1
    assert "Traceback" not in made.stderr
    assert made.stderr.splitlines()[-1].startswith("randfeat extract: the features of 00.png are not finite: try")
