import argparse
import os
import pickle
import sys

import pytest
import tiny
import torch
from official import CONTAINERS, state_of, write

from randfeat.weights import checkpoints


@pytest.fixture
def state():
    return state_of(tiny.model("arpg"))


def same(a, b):
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("suffix", checkpoints.PICKLES)
@pytest.mark.parametrize("zipped", [True, False])
def test_every_container_of_every_pickle(tmp_path, state, container, suffix, zipped):
    path = write(tmp_path / f"file{suffix}", state, container, _use_new_zipfile_serialization=zipped)
    found = checkpoints.read(path)
    same(found.state, state)
    assert found.container == container
    assert found.entries == (("optimizer", "steps", "args") if container else ())


def test_safetensors(tmp_path, state):
    found = checkpoints.read(write(tmp_path / "file.safetensors", state))
    same(found.state, state)
    assert (found.container, found.entries) == (None, ())


def test_the_weights_that_the_official_samplers_take(tmp_path, state):
    averaged = {name: value + 1 for name, value in state.items()}
    torch.save({"ema": averaged, "model": state, "steps": 1}, tmp_path / "file.pt")
    found = checkpoints.read(tmp_path / "file.pt")
    same(found.state, state)
    assert found.entries == ("ema", "steps")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_what_wrappers_put_before_names_is_taken_off(tmp_path, state, prefix):
    torch.save({"model": {prefix + name: value for name, value in state.items()}}, tmp_path / "file.pt")
    same(checkpoints.read(tmp_path / "file.pt").state, state)


def test_tensors_without_names_are_no_weights(tmp_path):
    torch.save({1: torch.ones(2)}, tmp_path / "file.pt")
    with pytest.raises(ValueError, match="holds no weights: expected named tensors"):
        checkpoints.read(tmp_path / "file.pt")


def test_a_text_file_is_none_of_torch(tmp_path):
    (tmp_path / "file.pt").write_text("hello, world\n")
    with pytest.raises(ValueError, match=r"file.pt (is damaged|is no checkpoint)") as refused:
        checkpoints.read(tmp_path / "file.pt")
    assert "(101)" not in str(refused.value)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_opening_reads_no_weights(tmp_path, suffix):
    """A file with a hole of 2 GiB is opened, and the process does not grow by it."""
    resource = pytest.importorskip("resource")  # not on Windows
    size, before = 1 << 29, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    path = tmp_path / f"file{suffix}"
    if suffix == ".pt":
        pytest.importorskip("torch", minversion="2.6")
        with torch.serialization.skip_data():  # writes the names and leaves a hole for each tensor
            torch.save({"model": {"head.weight": torch.empty(size, device="cpu")}}, path)
    else:
        header = f'{{"head.weight":{{"dtype":"F32","shape":[{size}],"data_offsets":[0,{4 * size}]}}}}'.encode()
        with path.open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            file.truncate(8 + len(header) + 4 * size)
    assert checkpoints.read(path).state["head.weight"].shape == (size,)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * (1 if sys.platform == "darwin" else 1024) < size


class Trap:
    """Unpickling it makes a directory."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("how", ["zip", "old", "plain", "as the weights"])
def test_a_pickle_that_wants_to_run_code_is_refused(tmp_path, state, how):
    path, sprung = tmp_path / "file.pt", tmp_path / "sprung"
    content = {"model": state, "trap": Trap(sprung)} if how in ("zip", "old") else Trap(sprung)
    if how == "plain":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how != "old")
    with pytest.raises(ValueError, match=r"file.pt asks for \w+\.mkdir and could run any code, so it is not opened"):
        checkpoints.read(path)
    path.write_bytes(pickle.dumps(content, protocol=5))
    with pytest.raises(
        ValueError, match=r"file.pt is damaged, or no checkpoint of only tensors .* so it is not opened"
    ):
        checkpoints.read(path)
    assert not sprung.exists()


def test_the_namespace_of_the_official_trainers_is_allowed_here_alone(tmp_path, state):
    path = write(tmp_path / "file.pt", state, "model")
    checkpoints.read(path)
    assert argparse.Namespace not in torch.serialization.get_safe_globals()
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)


@pytest.mark.parametrize("name", ["file.pt", "old.pt", "file.safetensors"])
def test_a_file_cut_short_is_refused(tmp_path, state, name):
    options = {} if name != "old.pt" else {"_use_new_zipfile_serialization": False}
    path = write(tmp_path / name, state, None, **options)
    whole = path.read_bytes()
    for size in (0, 4, 30, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="damaged") as raised:
            checkpoints.read(path)
        assert str(path) in str(raised.value)
        assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"optimizer": {"lr": 1}, "steps": 3}, "optimizer, steps"),
        ({"model": {"a": 3}}, "model"),
        ({"model": {}}, "model"),
        ({}, "none"),
        (torch.ones(3), "none"),
        ([torch.ones(3)], "none"),
    ],
)
def test_a_file_without_weights_is_refused(tmp_path, content, found):
    torch.save(content, tmp_path / "file.pt")
    with pytest.raises(ValueError, match=f"holds no weights: expected .* module, state_dict, ema, found {found}"):
        checkpoints.read(tmp_path / "file.pt")


def test_what_is_no_file_of_weights_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*missing.pt"):
        checkpoints.read(tmp_path / "missing.pt")
    (tmp_path / "file.npz").touch()
    with pytest.raises(ValueError, match=r"file.npz is no checkpoint: expected a file that ends in .safetensors, .pt"):
        checkpoints.read(tmp_path / "file.npz")
