"""Feature stores whose pictures have changed since: they say so by themselves, without the source that was read."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from readers import Means

from randfeat import cli
from randfeat.commands.probe.inputs import open_stored
from randfeat.data.sources import open_source
from randfeat.features.extract import extract
from randfeat.features.store import FeatureStore
from randfeat.index.images import build_from_store


@pytest.fixture
def data(tmp_path):
    """A folder of twelve pictures of two classes, the first of them damaged."""
    for number in range(12):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number:02}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 6, 3), number, np.uint8)).save(path)
    (tmp_path / "photos" / "a" / "00.bmp").write_bytes(b"no picture")
    return tmp_path / "photos"


def read(data: Path, out: Path) -> FeatureStore:
    return extract(Means(["number"]), open_source(data), out, workers=0)


def test_a_store_alone_knows_what_has_changed_since(data, tmp_path):
    store = read(data, tmp_path / "features")
    assert (store.meta["left_out"], store.changed()) == ([0], [])
    for path in data.rglob("*.bmp"):
        os.utime(path, (1, 1))
    assert store.changed() == []  # touched, and of the same bytes
    changed = data / store.paths[3]
    before = changed.read_bytes()
    changed.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    assert store.changed() == [store.paths[3]]
    with pytest.warns(UserWarning, match=f"are of 1 images that have changed since, such as {store.paths[3]}: extract"):
        open_stored(str(tmp_path / "features"), [])
    with pytest.warns(UserWarning, match="changed since, .*: `randfeat index sync` reads these again"):
        build_from_store(tmp_path / "index", store)
    changed.unlink()  # gone is not changed: stores are moved without their images
    assert store.changed() == []


def test_a_store_that_does_not_say_which_images_it_left_out_cannot_tell(data, tmp_path):
    store = read(data, tmp_path / "features")
    meta = {key: value for key, value in store.meta.items() if key != "left_out"}
    assert FeatureStore(store.directory, meta).changed() is None
    assert FeatureStore(store.directory, meta | {"skipped": 0}).changed() is None  # inputs.npy has another length


def test_pictures_that_a_tokenizer_was_fitted_to_are_named_where_they_changed(data, tmp_path, capsys):
    fitted = ["--tokenizer", "patch", "--patch", "2", "--vocab", "4", "--size", "4"]
    words = ["tokenize", str(data), "-o", str(tmp_path / "out"), *fitted, "--workers", "0", "--device", "cpu"]
    assert cli.main(words) == 3  # one is damaged
    for number, path in enumerate(sorted(data.rglob("*.bmp"))[1:]):
        Image.fromarray(np.full((4, 6, 3), 20 * number, np.uint8)).save(path)
    capsys.readouterr()
    assert cli.main(words) == 1
    assert "12 files 11 have changed since, such as a/02.bmp: delete it" in capsys.readouterr().err
