import os
import signal

import official
import pytest
import serial
import tiny
import torch
from filelock import FileLock
from hypothesis import settings

from randfeat.models import create, name_of

torch.set_num_threads(1)
settings.register_profile("randfeat", deadline=None, derandomize=True)
settings.load_profile("randfeat")
# a shell that starts pytest in the background has it ignore Ctrl-C, and so would every process that a test starts
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(params=tiny.EVERY, ids=tiny.name)
def model(request, monkeypatch):
    """Each registered generator on a square and on another grid, with weights that let every input matter; those with
    control are steered.
    """
    tiny.steer(monkeypatch)
    name, grid, config = request.param
    return tiny.model(name, grid, **config)


@pytest.fixture(params=tiny.VARIANTS, ids=tiny.name)
def build(request, monkeypatch):
    """The same generators as a function of the grid (and any other keyword)."""
    return builder(request, monkeypatch)


@pytest.fixture(params=tiny.OFFICIAL, ids=tiny.name)
def build_official(request, monkeypatch):
    """Those that official code has, as `build`."""
    return builder(request, monkeypatch)


def builder(request, monkeypatch):
    """Return the function that builds the generator of a fixture's parameter."""
    tiny.steer(monkeypatch)
    name, config = request.param
    return lambda grid=(2, 3), **more: tiny.model(name, grid, **(config | more))


@pytest.fixture
def fresh(build):
    """The same, as training finds them: their heads are zero."""

    def make(**config):
        model = build(**config)
        return create(name_of(model), **model.config)

    return make


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub that is a folder, empty at first; nothing asks the network."""
    return official.Hub(tmp_path / "hub", tmp_path / "cache").install(monkeypatch)


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """The folder that a very short `demo --train` leaves, as the pages' `digits_demo`: made once, whichever process
    needs it first.
    """
    from randfeat.commands.demo import trained, trained_page
    from randfeat.commands.demo.features import Plan

    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    out = shared / "shared" / "digits_demo"
    with FileLock(shared / "demo.lock"):
        if not out.exists():
            plan = Plan(("raster", "random*2"), (6,), ("query",), ("causal", "after"), ("mean", "grid4"), ("mean",))
            tiny_preset = trained.Preset(0.01, plan, samples_each=8, guidance_each=2, test_every=40, counts=(1, 16))
            making = shared / "making" / "digits_demo"
            with pytest.MonkeyPatch.context() as patch:
                shorten_demo(patch)
                trained_page.write(trained.run("tiny", tiny_preset, making), making)
            making.parent.rename(out.parent)
    return out


def shorten_demo(patch):
    """Let the demo's searches try few candidates. For that its measurements run in this process."""
    from randfeat.commands.demo import features, trained

    def few(space):
        names = [name for name in space if name.endswith(("C=0.1", "k=1", "alpha=1", "cosine", "C=1 relative_gamma=1"))]
        shifted = [name for name in space if name.endswith("with shifts")]
        return {name: space[name] for name in (*names, *shifted[:1])}

    for spaces in (features.FULL_SEARCH, features.CLASSIFIERS):
        for measure, space in spaces.items():
            patch.setitem(spaces, measure, few(space))
    patch.setattr(features, "DRAWS", 4)
    patch.setattr(trained, "run_all", serial.run_all)
