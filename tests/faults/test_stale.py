"""Results of files that have changed since, in as many bytes: they are noticed everywhere, and touched ones are not."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from randfeat.pretrain import tokenize
from randfeat.pretrain.vq import train_tokenizer
from readers import Means
from tokenizing import RECIPE

import randfeat
from randfeat import cli
from randfeat.commands.probe.inputs import extract_probed, open_probed
from randfeat.data.sources import open_source
from randfeat.data.states import INPUTS, Inputs, StaleResult
from randfeat.data.token_store import TokenStore
from randfeat.features import extract as extracting
from randfeat.features.extract import extract
from randfeat.index import images

WRITTEN = Path(__file__).parents[1] / "written_before"
MODEL = WRITTEN / "models" / "arpg"
FAST = ["--workers", "0", "--device", "cpu"]
COUNT = 12


def grey(level: int) -> bytes:
    """Return a BMP of one grey level; all are of as many bytes, but of levels above 255."""
    file = io.BytesIO()
    Image.new("RGB", (6, 4 if level < 256 else 5), (level % 256,) * 3).save(file, "BMP")
    return file.getvalue()


def as_folder(root: Path, levels) -> Path:
    for number, level in enumerate(levels):
        (root / "photos" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        (root / "photos" / "ab"[number % 2] / f"{number:02}.bmp").write_bytes(grey(level))
    return root / "photos"


def as_tar(root: Path, levels) -> Path:
    with tarfile.open(root / "photos.tar", "w") as file:
        for number, level in enumerate(levels):
            info = tarfile.TarInfo(f"{number:02}.bmp")
            info.size = len(grey(level))
            file.addfile(info, io.BytesIO(grey(level)))
    return root / "photos.tar"


def as_parquet(root: Path, levels) -> Path:
    path = root / "photos.parquet"
    table = pa.table({"image": [grey(level) for level in levels]})
    pq.write_table(table, path, compression="none", use_dictionary=False)
    return path


def as_list(root: Path, levels) -> Path:
    photos = as_folder(root, levels)
    names = sorted(path.relative_to(root).as_posix() for path in photos.rglob("*.bmp"))
    (root / "list.txt").write_text("".join(f"{name}\n" for name in names))
    return root / "list.txt"


FORMS = (as_folder, as_tar, as_parquet, as_list)
BEFORE, AFTER = range(COUNT), range(100, 100 + COUNT)


def later(path: Path) -> None:
    """Give every file of a data set a time of change a minute ahead of its own."""
    for file in [*path.parent.rglob("*")]:
        if file.is_file():
            now = file.stat().st_mtime_ns
            os.utime(file, ns=(now + 60 * 10**9, now + 60 * 10**9))


def first(store) -> list[float]:
    return store.as_numpy("number")[:, 0].tolist() if "number" in store.specs else store.as_numpy()[:, 0].tolist()


def read(source, out, **how):
    return extract(Means(["number"]), open_source(source), out, workers=0, **how)


@pytest.mark.parametrize("form", FORMS)
def test_features_of_changed_images_are_refused(form, tmp_path):
    made = read(form(tmp_path, BEFORE), tmp_path / "out")
    later(form(tmp_path, AFTER))
    with pytest.raises(
        StaleResult, match=r"12 files 12 have changed since, such as .*: delete it .* or choose another"
    ):
        read(form(tmp_path, AFTER), tmp_path / "out")
    assert first(made) == first(randfeat.FeatureStore.open(tmp_path / "out"))
    assert first(read(form(tmp_path, AFTER), tmp_path / "new")) != first(made)


@pytest.mark.parametrize("form", FORMS)
def test_touched_files_are_the_same_ones(form, tmp_path):
    data = form(tmp_path, BEFORE)
    made = read(data, tmp_path / "out")
    later(data)
    assert first(read(data, tmp_path / "out")) == first(made)
    recorded = np.load(tmp_path / "out" / INPUTS)
    states = open_source(data).states()
    assert recorded[["size", "mtime_ns", "ctime_ns"]].tolist() == [*states]  # so their bytes are not read again


def test_a_copy_without_times_is_the_same_data_set(tmp_path):
    data = as_folder(tmp_path, BEFORE)
    made = read(data, tmp_path / "out")
    shutil.copytree(data, tmp_path / "copy", copy_function=shutil.copyfile)
    assert first(read(tmp_path / "copy", tmp_path / "out")) == first(made)


def test_one_changed_image_of_many_is_named(tmp_path):
    data = as_folder(tmp_path, BEFORE)
    read(data, tmp_path / "out")
    (data / "b/03.bmp").write_bytes(grey(250))
    later(data)
    with pytest.raises(StaleResult, match=r"12 files 1 have changed since, such as b/03\.bmp") as caught:
        read(data, tmp_path / "out")
    assert [open_source(data).paths[row] for row in caught.value.rows] == ["b/03.bmp"]


@pytest.mark.parametrize("form", [as_folder, as_tar, as_list])
def test_a_file_of_another_size_is_named_too(form, tmp_path):
    read(form(tmp_path, BEFORE), tmp_path / "out")
    data = form(tmp_path, [*range(COUNT - 1), 1000])
    with pytest.raises(
        StaleResult, match=r"12 files (1|12) have changed since"
    ):  # all of a tar have its time of change
        read(data, tmp_path / "out")


@pytest.mark.parametrize("form", FORMS)
def test_times_that_were_set_back_are_no_excuse(form, tmp_path):
    data = form(tmp_path, BEFORE)
    times = {file: file.stat().st_mtime_ns for file in data.parent.rglob("*") if file.is_file()}
    read(data, tmp_path / "out")
    form(tmp_path, AFTER)
    for file, time in times.items():
        os.utime(file, ns=(time, time))
    with pytest.raises(StaleResult, match="12 files 12 have changed since"):
        read(data, tmp_path / "out")


def test_other_rights_of_files_whose_bytes_are_not_known_are_no_change(tmp_path):
    """A training on more images than memory holds records no bytes."""
    data = as_folder(tmp_path, BEFORE)
    inputs = Inputs(open_source(data), tmp_path)
    assert inputs.changed() is None
    assert inputs.begin() == []
    for file in data.rglob("*.bmp"):
        file.chmod(0o600)
    assert inputs.changed() == []
    (data / "b/03.bmp").touch()
    assert [open_source(data).paths[row] for row in inputs.changed()] == ["b/03.bmp"]


def test_another_name_is_another_data_set(tmp_path):
    data = as_folder(tmp_path, BEFORE)
    read(data, tmp_path / "out")
    (data / "b/03.bmp").rename(data / "b/3.bmp")
    with pytest.raises(ValueError, match=r"holds features with source\.fingerprint [0-9a-f]{64}, not"):
        read(data, tmp_path / "out")


def test_an_extraction_that_goes_on_reads_changed_images_again(tmp_path, monkeypatch, capsys):
    """Images of two shards were read when it was stopped, and one of them changes."""
    data = as_folder(tmp_path, BEFORE)

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(extracting, "_join", stop)
        with pytest.raises(KeyboardInterrupt):
            read(data, tmp_path / "out", shard_size=4)
    (data / "b/03.bmp").write_bytes(grey(250))
    later(data)
    resumed = read(data, tmp_path / "out", shard_size=4)
    assert "1 of 12 images have changed since they were read, such as b/03.bmp" in capsys.readouterr().err
    assert first(resumed) == first(read(data, tmp_path / "whole"))
    assert (tmp_path / "out" / INPUTS).read_bytes() == (tmp_path / "whole" / INPUTS).read_bytes()


def test_a_store_written_before_says_that_it_cannot_tell(tmp_path):
    data = as_folder(tmp_path, BEFORE)
    made = read(data, tmp_path / "out")
    (tmp_path / "out" / INPUTS).unlink()
    with pytest.warns(UserWarning, match="keeps no times of change .* cannot be told"):
        again = read(data, tmp_path / "out")
    assert first(again) == first(made)


# commands -----------------------------------------------------------------------------------------------------------


def squares(root: Path, levels) -> Path:
    for number, level in enumerate(levels):
        path = root / "squares" / f"{number:02}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(level).integers(0, 255, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    return root / "squares"


@dataclass(frozen=True)
class Command:
    """Command that keeps what it made: words before DATA and after it, and what makes DATA."""

    before: tuple[str, ...]
    after: tuple[str, ...]
    data: Callable[[Path, Sequence[int]], Path]


COMMANDS = {
    "extract": Command(("extract", str(MODEL)), (), as_folder),
    "tokenize": Command(("tokenize",), ("--tokenizer", str(MODEL)), as_folder),
    "tokenize a tar": Command(("tokenize",), ("--tokenizer", str(MODEL)), as_tar),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_refuses_what_it_made_of_other_files(name, tmp_path, capsys):
    command, out = COMMANDS[name], tmp_path / "out"
    words = [*command.before, str(command.data(tmp_path, BEFORE)), "-o", str(out), *command.after, *FAST]
    assert cli.main(words) == 0
    held = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    assert cli.main(words) == 0
    later(command.data(tmp_path, AFTER))
    capsys.readouterr()
    assert cli.main(words) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "12 files 12 have changed since" in told
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == held


@pytest.mark.parametrize("name", ["extract", "tokenize"])
def test_a_command_opens_what_was_written_before(name, tmp_path, capsys):
    command = COMMANDS[name]
    words = [*command.before, str(as_folder(tmp_path, BEFORE)), "-o", str(tmp_path / "out"), *command.after, *FAST]
    assert cli.main(words) == 0
    (tmp_path / "out" / INPUTS).unlink()
    capsys.readouterr()
    assert cli.main(words) == 0
    assert capsys.readouterr().err.count("cannot be told") == 1


def test_imported_tokens_that_were_overwritten_are_refused(tmp_path, capsys):
    four = [level % 7 for level in range(4)]

    def tree(shift):
        for number, level in enumerate(four):
            path = tmp_path / "tree" / str(number % 2) / f"{number}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, np.full((1, 4), (level + shift) % 7))
        return tmp_path / "tree"

    words = ["tokenize", "--import", str(tree(0)), "-o", str(tmp_path / "out"), "--vocab", "7", *FAST]
    assert cli.main(words) == 0
    assert cli.main(words) == 0
    kept = np.array(TokenStore.open(tmp_path / "out").tokens)
    later(tree(1))
    capsys.readouterr()
    assert cli.main(words) == 1
    assert "4 files 4 have changed since, such as 0/0.npy" in capsys.readouterr().err
    np.testing.assert_array_equal(TokenStore.open(tmp_path / "out").tokens, kept)


def test_tokens_of_a_run_that_goes_on_are_made_again(tmp_path, monkeypatch):
    words = [
        "tokenize",
        str(as_folder(tmp_path, BEFORE)),
        "-o",
        str(tmp_path / "out"),
        "--tokenizer",
        str(MODEL),
        *FAST,
    ]

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tokenize.TokenWriter, "finish", stop)
        assert cli.main(words) == 130
    later(as_folder(tmp_path, AFTER))
    assert cli.main(words) == 0
    whole = [str(tmp_path / "whole") if word == str(tmp_path / "out") else word for word in words]
    assert cli.main(whole) == 0
    one, other = (TokenStore.open(tmp_path / name) for name in ("out", "whole"))
    np.testing.assert_array_equal(one.tokens, other.tokens)
    assert (tmp_path / "out" / INPUTS).read_bytes() == (tmp_path / "whole" / INPUTS).read_bytes()


def given(tmp_path):
    """Return what a probe is told on the command line, as far as features go."""
    return SimpleNamespace(stores=None, out=tmp_path / "out", batch_size=8, workers=0)


def test_a_probe_reads_changed_images_anew(tmp_path):
    encoder, args = Means(["number"]), given(tmp_path)
    (before,) = extract_probed("m", encoder, [open_source(as_folder(tmp_path, BEFORE))], args).stores
    values = first(before)
    later(as_folder(tmp_path, AFTER))
    with pytest.warns(UserWarning, match="12 of 12 images have changed since .* it is made anew"):
        (after,) = extract_probed("m", encoder, [open_source(as_folder(tmp_path, AFTER))], args).stores
    assert after.directory == before.directory
    assert first(after) != values


def test_a_probe_of_stored_features_says_that_images_have_changed(tmp_path):
    read(as_folder(tmp_path, BEFORE), tmp_path / "features")
    sources = [open_source(as_folder(tmp_path, BEFORE))]
    open_probed(str(tmp_path / "features"), sources, [], given(tmp_path))
    later(as_folder(tmp_path, AFTER))
    with pytest.warns(UserWarning, match="are of 12 images that have changed since"):
        open_probed(str(tmp_path / "features"), sources, [], given(tmp_path))


def test_a_tokenizers_training_is_of_the_images_it_began_with(tmp_path):
    recipe = replace(RECIPE, training=replace(RECIPE.training, steps=2, eval_every=2))
    how = dict(held_out=0.0, workers=0, device="cpu")
    data = squares(tmp_path, BEFORE)
    train_tokenizer(recipe, open_source(data), tmp_path / "out", **how)
    later(data)
    train_tokenizer(recipe, open_source(data), tmp_path / "out", **how)  # touched
    later(squares(tmp_path, AFTER))
    with pytest.raises(StaleResult, match="12 files 12 have changed since"):
        train_tokenizer(recipe, open_source(data), tmp_path / "out", **how)
    (tmp_path / "out" / "tokenizer" / "training.json").unlink()  # as if it were not over
    with pytest.raises(StaleResult, match=r"holds a training of .* 12 files 12 have changed since"):
        train_tokenizer(recipe, open_source(data), tmp_path / "out", **how)
    (data / "03.bmp").write_bytes(b"shorter")
    with pytest.raises(StaleResult, match="12 files 12 have changed since"):
        train_tokenizer(recipe, open_source(data), tmp_path / "out", **how)


def test_an_index_reads_a_changed_archive_again(tmp_path):
    data, encoder = as_tar(tmp_path, BEFORE), Means(["number"])
    index = images.build(tmp_path / "index", encoder, open_source(data), workers=0)
    later(as_tar(tmp_path, AFTER))
    changes = images.sync(index, open_source(data), encoder, drop=False, workers=0)
    assert (changes.changed, changes.unchanged) == (COUNT, 0)
