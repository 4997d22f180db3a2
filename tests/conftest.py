import pytest
import tiny
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("randfeat", deadline=None, derandomize=True)
settings.load_profile("randfeat")


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(params=tiny.EVERY, ids=tiny.name)
def model(request):
    """Each registered generator on a square and on another grid, with weights that let every input matter."""
    name, grid, config = request.param
    return tiny.model(name, grid, **config)


@pytest.fixture(params=tiny.VARIANTS, ids=tiny.name)
def build(request):
    """The same generators as a function of the grid (and any other keyword)."""
    name, config = request.param
    return lambda grid=(2, 3), **more: tiny.model(name, grid, **(config | more))
