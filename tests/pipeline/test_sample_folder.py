"""A folder of samples is whole, exact, and the same however it came to be."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch
from folders import contents
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pipelines import HOW, NAMES, make_sampler

from randfeat import Guidance, Sampling
from randfeat.data.images import to_pil
from randfeat.inference.extrapolation import Extrapolation
from randfeat.pipeline import sample_folder
from randfeat.pipeline.sample_folder import write_samples
from randfeat.utils import arrays, atomic, drawing


def pixels(path):
    with Image.open(path) as picture:
        return picture.tobytes()


@pytest.mark.parametrize("channels", [1, 3])
def test_it_holds_what_was_sampled(tmp_path, channels):
    model = make_sampler(channels)
    folder = write_samples(model, tmp_path / "deep" / "out", 7, ["cow", 0], seed=5, batch_size=3, model_name="tiny")
    assert folder == tmp_path / "deep" / "out"
    labels = [2, 0, 2, 0, 2, 0, 2]
    expected = [to_pil(image) for image in model.sample(labels, HOW, seed=5)]
    for number, picture in enumerate(expected):
        with Image.open(folder / "images" / f"{number:06}.png") as made:
            assert made.mode == {1: "L", 3: "RGB"}[channels]
            assert made.tobytes() == picture.tobytes()
    assert len(list((folder / "images").iterdir())) == 7
    with np.load(folder / "samples.npz") as archive:
        assert sorted(archive) == ["arr_0", "arr_1"]
        assert archive["arr_0"].dtype == np.uint8
        assert archive["arr_0"].shape == (7, 4, 6, 3)
        assert (archive["arr_0"] == np.stack([np.asarray(picture.convert("RGB")) for picture in expected])).all()
        assert archive["arr_1"].dtype == np.int64
        assert archive["arr_1"].tolist() == labels
    rows = list(csv.DictReader((folder / "labels.csv").read_text().splitlines()))
    assert [row["file"] for row in rows] == [f"images/{number:06}.png" for number in range(7)]
    assert [row["name"] for row in rows] == [NAMES[label] for label in labels]
    assert [int(row["seed"]) for row in rows] == [*range(5, 12)]
    record = json.loads((folder / "settings.json").read_text())
    assert record["sampling"]["steps"] == 3
    assert (record["seed"], record["count"], record["classes"], record["model"]) == (5, 7, [2, 0], "tiny")
    captions = [NAMES[label] for label in labels]
    assert pixels(folder / "grid.png") == drawing.grid(expected, 2, captions).tobytes()
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["images", "grid.png", "labels.csv", "samples.npz", "settings.json"]
    )


def test_whose_turn_it_is():
    seeds = torch.arange(3000)
    assert sample_folder.class_indices(seeds[:5], [2, 0], 3).tolist() == [2, 0, 2, 0, 2]
    drawn = sample_folder.class_indices(seeds, [], 3)
    assert torch.equal(drawn[7:9], sample_folder.class_indices(seeds[7:9], [], 3))  # by the seed alone
    counts = drawn.bincount(minlength=3)
    assert len(counts) == 3
    assert ((counts - 1000) ** 2 / 1000).sum() < 13.8  # chi-square with 2 degrees of freedom, 99.9 %
    assert (sample_folder.class_indices(seeds, [], 0) == 0).all()  # the null class


def test_how_many_there_are_by_default(tmp_path):
    model = make_sampler()
    for more, count in ((dict(classes=["cat", "cat"]), 2), (dict(balanced=True), 3), ({}, 16)):
        folder = write_samples(model, tmp_path / str(count), **more)
        assert arrays.count_images(folder / "samples.npz") == count
    free = make_sampler(num_classes=0)
    folder = write_samples(free, tmp_path / "free", 2, classes=[None], sampling=Sampling())
    with np.load(folder / "samples.npz") as archive:
        assert list(archive) == ["arr_0"]


def test_numbers_of_numpy_are_numbers(tmp_path):
    how = Sampling(np.int64(3), top_k=np.int64(2), temperature=np.float32(0.5))
    folder = write_samples(make_sampler(), tmp_path / "out", np.int64(2), [np.int64(1)], sampling=how, seed=np.int64(4))
    same = Sampling(3, top_k=2, temperature=0.5)
    write_samples(make_sampler(), folder, 2, ["dog"], sampling=same, seed=4)


def test_an_order_and_a_factor(tmp_path):
    model, how = make_sampler(), Extrapolation(2)
    folder = write_samples(model, tmp_path / "large", 2, ["cat"], extrapolation=how, batch_size=1)
    with np.load(folder / "samples.npz") as archive:
        assert archive["arr_0"].shape == (2, 8, 12, 3)
    order = [3, 1, 5, 0, 2, 4]
    folder = write_samples(model, tmp_path / "ordered", 2, ["cat"], order=order)
    expected = to_pil(model.sample(["cat"], HOW, 1, order)[0])
    assert pixels(folder / "images" / "000001.png") == expected.tobytes()
    with pytest.raises(ValueError, match=r"holds samples with order \[3, 1, 5, 0, 2, 4\], not None"):
        write_samples(model, folder, 2, ["cat"])


# going on ---------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for a kill: nothing that runs on an exception may repair what it left."""


@pytest.fixture(scope="module")
def at_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("at_once") / "samples"
    return contents(write_samples(make_sampler(), folder, 5, ["cat", "dog"], batch_size=2))


@given(writes=st.integers(0, 9), before=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_a_kill_at_any_moment_is_mended_by_the_same_command(tmp_path_factory, at_once, writes, before):
    """Killed before or after the rename of the n-th file."""
    folder, done = tmp_path_factory.mktemp("killed") / "samples", []
    with pytest.MonkeyPatch.context() as patch:
        replace = type(folder).replace

        def dying(self, target):
            done.append(target)
            if len(done) <= writes:
                return replace(self, target)
            if not before:
                replace(self, target)
            raise Killed

        patch.setattr(type(folder), "replace", dying)
        with contextlib.suppress(Killed):
            write_samples(make_sampler(), folder, 5, ["cat", "dog"], batch_size=2)
    whole = {name: content for name, content in contents(folder).items() if not name.split("/")[-1].startswith(".")}
    assert whole.items() <= at_once.items()  # what is there is whole
    write_samples(make_sampler(), folder, 5, ["cat", "dog"], batch_size=2)
    assert contents(folder) == at_once


def test_what_is_there_is_kept_and_a_larger_count_goes_on(tmp_path):
    model = make_sampler()
    once = write_samples(model, tmp_path / "once", 70, balanced=True)
    grown = write_samples(model, tmp_path / "grown", 4, balanced=True, model_name="moved since")
    kept = {path: path.stat().st_mtime_ns for path in (grown / "images").iterdir()}
    write_samples(model, grown, 70, balanced=True, batch_size=7)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert contents(grown) == contents(once)
    archive = (grown / "samples.npz").stat().st_mtime_ns
    write_samples(model, grown, 70, balanced=True)
    assert (grown / "samples.npz").stat().st_mtime_ns == archive  # nothing is made twice
    with pytest.raises(ValueError, match="holds more than 5 images, number 69 for one: choose another directory"):
        write_samples(model, grown, 5, balanced=True)


@pytest.mark.parametrize(
    ("other", "field"),
    [
        (dict(sampling=Sampling(4, guidance=Guidance(2))), "sampling.steps 3, not 4"),
        (dict(sampling=Sampling(3, guidance=Guidance(2.5))), "sampling.guidance.scale 2, not 2.5"),
        (dict(seed=1), "seed 0, not 1"),
        (dict(classes=["dog"]), r"classes \[0\], not \[1\]"),
        (dict(classes=[], balanced=True), r"classes \[0\], not \[\]"),
        (dict(order=range(6)), r"order None, not \[0, 1, 2, 3, 4, 5\]"),
        (dict(extrapolation=Extrapolation(2)), "extrapolation.factor None, not 2"),
        (dict(model=make_sampler(seed=1)), "weights [0-9a-f]{64}, not"),
        (dict(model=make_sampler(1)), "tokenizer.channels 3, not 1"),
        (dict(model=make_sampler(num_classes=2)), "generator.num_classes 3, not 2"),
    ],
)
def test_other_settings_need_another_folder(tmp_path, other, field):
    same = {"model": make_sampler(), "count": 2, "classes": ["cat"]}
    folder = write_samples(directory=tmp_path / "out", **same)
    before = contents(folder)
    with pytest.raises(ValueError, match=f"out holds samples with {field}.*: choose another directory") as error:
        write_samples(directory=folder, **(same | other))
    assert "\n" not in str(error.value)
    assert contents(folder) == before


def test_half_precision_is_another_setting(tmp_path):
    model = make_sampler()
    folder = write_samples(model, tmp_path / "out", 2)
    model.generator.to(torch.bfloat16)
    with pytest.raises(ValueError, match="holds samples with dtype float32, not bfloat16"):
        write_samples(model, folder, 2)


def test_what_is_not_ours_is_left_alone(tmp_path):
    for name, inside in (("photos", "me.jpg"), ("other", "settings.json"), ("broken", "settings.json")):
        (tmp_path / name).mkdir()
        (tmp_path / name / inside).write_text("{}" if name == "other" else "years of work")
    (tmp_path / "file").write_text("in the way")
    before = contents(tmp_path)
    for name in ("photos", "other", "broken", "file"):
        with pytest.raises(FileExistsError, match="choose another directory"):
            write_samples(make_sampler(), tmp_path / name, 1)
    assert contents(tmp_path) == before
    (tmp_path / "empty").mkdir()
    assert write_samples(make_sampler(), tmp_path / "empty", 1) == tmp_path / "empty"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(count=0), "count must be a whole number from 1, got 0"),
        (dict(count=2.5), "count must be a whole number from 1, got 2.5"),
        (dict(count=True), "count must be a whole number from 1, got True"),
        (dict(batch_size=0), "batch_size must be a whole number from 1, got 0"),
        (dict(seed=0.5), "a seed is a whole number, got 0.5"),
        (dict(classes=["fox"]), "unknown class 'fox'"),
        (dict(classes=[3]), r"class 3 is outside 0\.\.2"),
        (dict(order=[0, 1, 2, 3, 4, 0]), "not a permutation"),
        (dict(order=[[*range(6)]]), "one order for all of its images"),
        (dict(order=[0, 1]), "an order for the grid 2 x 3 holds 6"),
        (dict(balanced=True, classes=[0]), "balanced goes round all classes"),
        (dict(sampling=Sampling(temperature=1e-40)), "the logits are not finite"),
        (dict(sampling=Sampling(order="spiral")), "order 'spiral' is none of RandAR's"),
        (dict(sampling=Sampling(within_step="group")), "within_step 'group' is none of RandAR's"),
        (dict(model=make_sampler(num_classes=0), balanced=True), "no classes to balance"),
    ],
)
def test_bad_input_writes_nothing(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message) as error:
        write_samples(**({"model": make_sampler(), "directory": tmp_path / "out"} | wrong))
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


# the archive and the grid -----------------------------------------------------------------------------------


def test_an_archive_of_any_size_is_written_picture_by_picture(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
    paths = [tmp_path / f"{number}.png" for number in range(8)]
    for path, pixels in zip(paths, noise, strict=True):
        Image.fromarray(pixels).save(path)
    arrays.write_images(tmp_path / "warm.npz", paths[:1], [0])
    tracemalloc.start()
    arrays.write_images(tmp_path / "all.npz", paths * 50, [7] * 400)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 400 * noise[0].size / 4
    with np.load(tmp_path / "all.npz") as archive:
        assert (archive["arr_0"].reshape(50, *noise.shape) == noise).all()
        assert archive["arr_1"].tolist() == [7] * 400
    assert arrays.count_images(tmp_path / "all.npz") == 400
    assert arrays.count_images(tmp_path / "missing.npz") == arrays.count_images(paths[0]) == 0
    with zipfile.ZipFile(tmp_path / "all.npz") as archive:
        assert archive.testzip() is None


def test_a_full_disk_leaves_the_old_archive(tmp_path, monkeypatch):
    Image.new("L", (2, 2)).save(tmp_path / "0.png")
    arrays.write_images(tmp_path / "all.npz", [tmp_path / "0.png"], None)

    def full(descriptor):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        arrays.write_images(tmp_path / "all.npz", [tmp_path / "0.png"] * 2, None)
    assert arrays.count_images(tmp_path / "all.npz") == 1


@pytest.mark.parametrize(
    ("count", "columns"), [(1, 1), (2, 2), (3, 3), (4, 2), (7, 3), (8, 4), (9, 3), (12, 4), (16, 4), (50, 10), (64, 8)]
)
def test_grids_are_nearly_square(count, columns):
    assert drawing.columns_for(count) == columns


def test_a_grid_shows_every_picture_in_its_place():
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250)]
    plain = [Image.new("RGB", (128, 100), colour) for colour in colours]
    for captions in (None, ["a", "a very long name that cannot fit below so small a picture", ""]):
        sheet = drawing.grid(plain, 2, captions)
        below = 0 if captions is None else 27  # of two lines
        assert sheet.size == (2 * 128 + 3 * 4, 2 * (100 + below) + 3 * 4)
        assert sheet.getpixel((4, 4)) == colours[0]
        assert sheet.getpixel((4 + 128 + 4, 4 + 99)) == colours[1]
        assert sheet.getpixel((4 + 127, 4 + 100 + below + 4)) == colours[2]
        assert sheet.getpixel((4 + 128 + 4, 4 + 100 + below + 4)) == (255, 255, 255)
    assert min(drawing.grid([Image.new("L", (8, 4))]).size) >= 96  # small pictures are magnified


def test_a_file_is_written_before_its_name_appears(tmp_path, monkeypatch):
    """The images pass through `files.write_bytes`, which renames what the disk has."""
    seen = []
    monkeypatch.setattr(
        atomic, "write_bytes", lambda path, content: seen.append(path.name) or path.write_bytes(content)
    )
    write_samples(make_sampler(), tmp_path / "out", 2)
    assert seen[0] == "settings.json"
    assert {"000000.png", "000001.png", "grid.png", "labels.csv"} <= set(seen)


def test_files_of_other_names_and_empty_ones_do_not_count(tmp_path):
    folder = write_samples(make_sampler(), tmp_path / "out", 3)
    expected = {path.name: path.read_bytes() for path in (folder / "images").iterdir()}
    (folder / "images" / "000001 2.png").write_bytes(b"a copy")
    (folder / "images" / "0abc.png").write_bytes(b"")
    (folder / "images" / "000002.png").write_bytes(b"")
    write_samples(make_sampler(), folder, 3)
    assert {name: (folder / "images" / name).read_bytes() for name in expected} == expected


def test_a_damaged_picture_is_named(tmp_path):
    folder = write_samples(make_sampler(), tmp_path / "out", 3)
    (folder / "images" / "000001.png").write_bytes(b"not a picture")
    with pytest.raises(OSError, match=r"000001.png is no picture any more .*: delete it and run the same again"):
        write_samples(make_sampler(), folder, 3)
    (folder / "images" / "000001.png").unlink()
    write_samples(make_sampler(), folder, 3)
