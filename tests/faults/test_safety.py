"""Files of strangers: opening them runs nothing, and writes nothing."""

import io
import os
import pickle
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from randfeat.probes.tasks.revisited import read_pickle

from randfeat import open_encoder
from randfeat.data.decode import open_picture
from randfeat.data.sources import open_source
from randfeat.features.evaluators import Inception
from randfeat.utils import arrays
from randfeat.weights import checkpoints


class Trap:
    """Object that makes a file where it is unpickled."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self):
        return os.mkdir, (str(self.made),)


def pickled(path, trap):
    path.write_bytes(pickle.dumps({"model": trap}, 2))


def saved(path, trap):
    torch.save({"model": {"a": torch.zeros(2)}, "more": trap}, path)


def array(path, trap):
    np.save(path, np.array([trap], dtype=object), allow_pickle=True)


def archive(path, trap):
    np.savez(path, arr_0=np.array([trap], dtype=object))


def token_tree(path):
    folder = path.parent / "tree" / "cat"
    folder.mkdir(parents=True)
    (folder / "0.npy").write_bytes(path.read_bytes())
    open_source(str(folder.parent)).tokens(0)


FILES = {
    "weights.pt": (saved, checkpoints.read),
    "weights.pth": (pickled, checkpoints.read),
    "weights.bin": (saved, checkpoints.read),
    "timm.pth": (saved, lambda path: open_encoder(f"timm:test_vit@{path}")),
    "timm.tar": (pickled, lambda path: open_encoder(f"timm:test_vit@{path}")),
    "inception.pth": (saved, Inception),
    "truth.pkl": (pickled, read_pickle),
    "picture.npy": (array, open_picture),
    "tokens.npy": (array, token_tree),
    "samples.npz": (archive, lambda path: [*arrays.read_images(path)]),
}


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_run(tmp_path, name):
    write, read = FILES[name]
    made = tmp_path / "made"
    write(tmp_path / name, Trap(made))
    with pytest.raises(ValueError):  # noqa: PT011  of any text
        read(tmp_path / name)
    assert not made.exists()


def test_the_trap_works(tmp_path):
    pickled(tmp_path / "trap", Trap(tmp_path / "made"))
    pickle.loads((tmp_path / "trap").read_bytes())
    assert (tmp_path / "made").exists()


def test_members_of_tars_stay_there(tmp_path):
    """Members that point out of the folder are rows like others; links are none, and nothing is written."""
    png = io.BytesIO()
    Image.new("RGB", (2, 2)).save(png, "PNG")
    inside = tmp_path / "deep" / "inside"
    inside.mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(png.getvalue())
    with tarfile.open(inside / "data.tar", "w") as target:
        for name in ("../../out.png", f"{tmp_path}/out2.png", "a/../../../out3.png"):
            entry = tarfile.TarInfo(name)
            entry.size = len(png.getvalue())
            target.addfile(entry, io.BytesIO(png.getvalue()))
        for name, kind in (("link.png", tarfile.SYMTYPE), ("hard.png", tarfile.LNKTYPE)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "../../secret.png"
            target.addfile(entry)
    before = sorted(tmp_path.rglob("*"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = open_source(str(inside / "data.tar"))
    assert [path.rpartition("/")[2] for path in source.paths] == ["out.png", "out2.png", "out3.png"]
    assert [source.read(i).size for i in range(3)] == [(2, 2)] * 3
    assert sorted(tmp_path.rglob("*")) == before
