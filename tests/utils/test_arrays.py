"""Small `.npz` files are written whole or not at all."""

import numpy as np
import pytest

from randfeat.utils import arrays

KEPT = {"scores": np.arange(6, dtype=np.float16).reshape(2, 3), "names": np.array(["a", "longer"])}


@pytest.mark.parametrize("compressed", [True, False])
def test_arrays_come_back_from_a_folder_that_was_not_there(tmp_path, compressed):
    path = tmp_path / "new" / "scores.npz"
    arrays.write_npz(path, KEPT, compressed)
    with np.load(path) as file:
        assert file.files == [*KEPT]
        for name, wanted in KEPT.items():
            assert file[name].dtype == wanted.dtype
            assert np.array_equal(file[name], wanted)
    assert [one.name for one in path.parent.iterdir()] == ["scores.npz"]


def test_a_write_that_fails_leaves_the_file_before_it(tmp_path, monkeypatch):
    path = tmp_path / "scores.npz"
    arrays.write_npz(path, KEPT)
    before = path.read_bytes()

    def full(file, **values):
        file.write(b"half of it")
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError, match="No space left"):
        arrays.write_npz(path, {"scores": np.zeros(3)})
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["scores.npz"]


def test_a_name_without_a_suffix_stays_as_it_is(tmp_path):
    arrays.write_npz(tmp_path / "scores", KEPT)
    assert [one.name for one in tmp_path.iterdir()] == ["scores"]
