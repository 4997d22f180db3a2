"""Bad inputs, each a row of a table, and the place that they are taken from: tiny models, data, stores and tables."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import damaged
import numpy as np
from pipelines import make_pipeline, make_sampler

from randfeat.cli import main


class Place:
    """Things by name, made when they are first asked for, all in one folder. As a mapping it gives their paths."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._made: dict[str, Path] = {}

    def __getitem__(self, name: str) -> Path:
        if name == "root":
            return self.root
        if name == "out":
            return self.root / "out"
        if name not in self._made:
            self._made[name] = MAKERS[name](self, self.root / name)
        return self._made[name]


MAKERS: dict[str, Callable[[Place, Path], Path]] = {}


def maker(make: Callable[[Place, Path], Path]) -> Callable[[Place, Path], Path]:
    """Add a function (place, path) -> path to those that make things, under its name."""
    MAKERS[make.__name__] = make
    return make


def _text(name: str, content: str | bytes, suffix: str = "") -> None:
    def make(place: Place, path: Path) -> Path:
        path = path.with_name(name + suffix)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    MAKERS[name] = make


# data ----------------------------------------------------------------------------------------------------------------


@maker
def photos(place: Place, path: Path) -> Path:
    for number in range(12):
        folder = path / ("cat", "dog", "cow")[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        damaged.noise_picture(8, 9, 3, number).save(folder / f"{number:02}.png")
    return path


@maker
def picture(place: Place, path: Path) -> Path:
    return place["photos"] / "cat" / "00.png"


@maker
def one_class(place: Place, path: Path) -> Path:
    shutil.copytree(place["photos"] / "cat", path / "cat")
    return path


@maker
def mixed(place: Place, path: Path) -> Path:
    """Sound pictures, every kind of damaged one, and a link to itself."""
    shutil.copytree(place["photos"], path)
    for number, kind in enumerate(damaged.DAMAGES):
        damaged.write_damaged(path / "cat" / f"damaged{number}", kind)
    (path / "cat" / "loop.png").symlink_to(path / "cat" / "loop.png")
    return path


@maker
def all_damaged(place: Place, path: Path) -> Path:
    path.mkdir()
    for number, kind in enumerate(damaged.DAMAGES):
        damaged.write_damaged(path / f"damaged{number}", kind)
    return path


@maker
def empty(place: Place, path: Path) -> Path:
    path.mkdir()
    return path


@maker
def notes(place: Place, path: Path) -> Path:
    """A folder of files that are no images."""
    path.mkdir()
    (path / "note.txt").write_text("nothing")
    (path / "table.csv").write_text("a,b\n1,2\n")
    return path


@maker
def taken(place: Place, path: Path) -> Path:
    """A file where a folder is to be made."""
    path.write_text("somebody's")
    return path


@maker
def foreign(place: Place, path: Path) -> Path:
    """A folder that holds something else."""
    path.mkdir()
    (path / "thesis.txt").write_text("years of work")
    return path


for _name, _content in {
    "empty_csv": "",
    "header_csv": "path,label\n",
    "pathless_csv": "picture,label\nphotos/cat/00.png,cat\n",
    "twice_csv": "path,label,label\nphotos/cat/00.png,cat,dog\n",
    "path_twice_csv": "path,path,label\nphotos/cat/00.png,photos/cat/00.png,dog\n",
    "row_twice_csv": "path,label\nphotos/cat/00.png,cat\nphotos/cat/00.png,dog\n",
    "blank_csv": "path,label\nphotos/cat/00.png,cat\n,dog\n",
    "ragged_csv": "path,label\nphotos/cat/00.png,cat,more\n",
    "semicolon_csv": "path;label\nphotos/cat/00.png;cat\n",
    "windows_csv": "path,label\nphotos/cat/00.png,caf\xe9\n".encode("cp1252"),
    "utf16_csv": "path,label\nphotos/cat/00.png,cat\n".encode("utf-16"),
    "binary_csv": bytes(range(256)) * 4,
    "negative_csv": "path,label\nphotos/cat/00.png,-7\nphotos/dog/01.png,1\n",
}.items():
    _text(_name, _content, ".csv")
_text("bad_jsonl", '{"path": "photos/cat/00.png", "label": ', ".jsonl")
_text("list_jsonl", '["photos/cat/00.png"]\n', ".jsonl")
_text("bad_parquet", b"PAR1 and nothing", ".parquet")
_text("bad_tar", b"not an archive" * 100, ".tar")
_text("bad_npz", b"PK\3\4 half a zip", ".npz")
_text("bad_npy", b"\x93NUMPY\x01\x00v\x00{'descr'", ".npy")
_text("short_labels", "cat\ndog\n", ".txt")
_text("some_labels", "00.png cat\n01.png\n", ".txt")
_text("binary_list", bytes(range(256)), ".txt")
_text("bad_yaml", "model: [randar\n", ".yaml")
_text("list_yaml", "- a\n- b\n", ".yaml")
_text("unknown_yaml", "colour: blue\n", ".yaml")
_text("empty_yaml", "", ".yaml")
_text("not_weights", b"these are no weights at all", ".safetensors")
_text("not_pt", b"these are no weights at all", ".pt")
_text("order_words", "one two three\n", ".txt")
_text("order_short", "0 1 2\n", ".txt")
_text("order_twice", "0 1 2 3 4 4\n", ".txt")


@maker
def tar_of_text(place: Place, path: Path) -> Path:
    import tarfile

    path = path.with_suffix(".tar")
    with tarfile.open(path, "w") as archive:
        archive.add(place["notes"] / "note.txt", "note.txt")
    return path


@maker
def cut_tar(place: Place, path: Path) -> Path:
    import tarfile

    path = path.with_suffix(".tar")
    with tarfile.open(path, "w") as archive:
        for file in sorted(place["photos"].rglob("*.png")):
            archive.add(file, f"{file.parent.name}/{file.name}")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2 - 300])
    return path


def _npz(name: str, **arrays: Any) -> None:
    def make(place: Place, path: Path) -> Path:
        np.savez(path.with_suffix(".npz"), **arrays)
        return path.with_suffix(".npz")

    MAKERS[name] = make


PIXELS = np.random.default_rng(0).integers(0, 255, (8, 8, 8, 3), dtype=np.uint8)
_npz("none_npz", arr_0=PIXELS[:0])
_npz("floats_npz", arr_0=PIXELS / 255)
_npz("grey_npz", arr_0=PIXELS[..., 0])
_npz("other_npz", images=PIXELS)
_npz("objects_npz", arr_0=np.array([{"a": 1}], dtype=object))
_npz("fortran_npz", arr_0=np.asfortranarray(PIXELS))
_npz("good_npz", arr_0=PIXELS)


@maker
def cut_npz(place: Place, path: Path) -> Path:
    """A zip whose entry ends early, though its directory is whole."""
    path = path.with_suffix(".npz")
    head = place["good_npz"].read_bytes()
    with zipfile.ZipFile(place["good_npz"]) as archive:
        entry = archive.read("arr_0.npy")
    assert head
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("arr_0.npy", entry[: len(entry) // 2])
    return path


def _bias(name: str, array: np.ndarray) -> None:
    def make(place: Place, path: Path) -> Path:
        np.save(path.with_suffix(".npy"), array, allow_pickle=True)
        return path.with_suffix(".npy")

    MAKERS[name] = make


FREE_BIAS = np.zeros((2, 3, 7), np.float32)
_bias("bias_words", np.array(["a", "b"]))
_bias("bias_objects", np.array([{"a": 1}], dtype=object))
_bias("bias_whole", np.zeros(7, np.int64))
_bias("bias_short", np.zeros(6, np.float32))
_bias("bias_turned", np.zeros((3, 2, 7), np.float32))
_bias("bias_flat", np.zeros((6, 7), np.float32))
_bias("bias_no_cells", np.zeros((0, 3, 7), np.float32))
_bias("bias_nan", np.where(np.arange(7) == 3, np.nan, FREE_BIAS))
_bias("bias_infinite", np.where(np.arange(7) == 3, np.inf, FREE_BIAS))
_bias("bias_none_left", np.where(np.arange(6).reshape(2, 3, 1) == 4, -np.inf, FREE_BIAS))
_bias("good_bias", FREE_BIAS)


# models --------------------------------------------------------------------------------------------------------------


@maker
def model(place: Place, path: Path) -> Path:
    make_sampler().save(path)
    return path


@maker
def free(place: Place, path: Path) -> Path:
    make_sampler(num_classes=0).save(path)
    return path


@maker
def raster(place: Place, path: Path) -> Path:
    make_pipeline("llamagen", 3).save(path)
    return path


def _broken(name: str, change: Callable[[Path], object]) -> None:
    def make(place: Place, path: Path) -> Path:
        shutil.copytree(place["model"], path)
        change(path)
        return path

    MAKERS[name] = make


def _config(path: Path, **changes: Any) -> None:
    content = json.loads((path / "config.json").read_text())
    for name, value in changes.items():
        content["generator"][name] = value
    (path / "config.json").write_text(json.dumps(content))


_broken("model_to_change", lambda path: None)
_broken("model_no_config", lambda path: (path / "config.json").unlink())
_broken("model_no_weights", lambda path: (path / "model.safetensors").unlink())
_broken("model_no_tokenizer", lambda path: shutil.rmtree(path / "tokenizer"))
_broken("model_cut", lambda path: (path / "model.safetensors").write_bytes(b"\0" * 40))
_broken("model_bad_json", lambda path: (path / "config.json").write_text('{"generator": '))
_broken("model_json_list", lambda path: (path / "config.json").write_text("[1, 2]"))
_broken("model_empty_json", lambda path: (path / "config.json").write_text("{}"))
_broken("model_unknown", lambda path: _config(path, name="gpt"))
_broken("model_extra_field", lambda path: _config(path, colour="blue"))
_broken("model_other_depth", lambda path: _config(path, depth=7))
_broken("model_bad_heads", lambda path: _config(path, num_heads=5))
_broken("model_text_depth", lambda path: _config(path, depth="four"))
_broken("model_bad_grid", lambda path: _config(path, grid=[2]))
_broken("model_zero_grid", lambda path: _config(path, grid=[0, 3]))
_broken("model_negative_classes", lambda path: _config(path, num_classes=-1))


# what commands make --------------------------------------------------------------------------------------------------


def made(*words: Any) -> None:
    """Run a command that has to succeed."""
    code = main([str(word) for word in words])
    assert code == 0, (words, code)


@maker
def store(place: Place, path: Path) -> Path:
    made("extract", place["model"], place["photos"], "-o", path, "--workers", "0")
    return path


@maker
def two_specs(place: Place, path: Path) -> Path:
    specs = "raster/causal/token/L1/mean/mean", "raster/causal/token/L2/mean/mean"
    made("extract", place["model"], place["photos"], "-o", path, "--workers", "0", "--spec", *specs)
    return path


@maker
def index(place: Place, path: Path) -> Path:
    made("index", "build", path, place["store"])
    return path


@maker
def cache(place: Place, path: Path) -> Path:
    made(
        "tokenize",
        place["photos"],
        "-o",
        path,
        "--tokenizer",
        place["model"] / "tokenizer",
        "--size",
        4,
        6,
        "--workers",
        "0",
    )
    return path


@maker
def samples(place: Place, path: Path) -> Path:
    made("sample", place["model"], "-o", path, "--count", 2)
    return path


def _damaged(name: str, of: str, change: Callable[[Path], object]) -> None:
    def make(place: Place, path: Path) -> Path:
        shutil.copytree(place[of], path)
        change(path)
        return path

    MAKERS[name] = make


def _first(path: Path, pattern: str) -> Path:
    return sorted(path.rglob(pattern))[0]


for _of, _pattern in (("store", "features*.npy"), ("index", "*.npz"), ("cache", "tokens.npy")):
    _damaged(f"{_of}_cut", _of, lambda path, p=_pattern: os.truncate(_first(path, p), 90))
for _of in ("store", "index", "cache"):
    _damaged(f"{_of}_no_meta", _of, lambda path: _first(path, "meta.json").unlink())
    _damaged(f"{_of}_bad_meta", _of, lambda path: _first(path, "meta.json").write_text('{"a": '))
    _damaged(f"{_of}_empty_meta", _of, lambda path: _first(path, "meta.json").write_text("{}"))
    _damaged(f"{_of}_list_meta", _of, lambda path: _first(path, "meta.json").write_text("[]"))
    _damaged(f"{_of}_to_change", _of, lambda path: None)
_damaged("store_no_rows", "store", lambda path: _first(path, "*.parquet").unlink())
_damaged("store_bad_rows", "store", lambda path: _first(path, "*.parquet").write_bytes(b"PAR1"))
_damaged("cache_no_rows", "cache", lambda path: _first(path, "rows.parquet").unlink())
_damaged("cache_no_tokenizer", "cache", lambda path: shutil.rmtree(path / "tokenizer"))
