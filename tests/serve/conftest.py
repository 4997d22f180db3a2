"""A service of a small RandAR with labels and an index, asked in this process."""

from __future__ import annotations

import damaged
import pytest
from asking import HOST, SIZE, SPECS
from fastapi.testclient import TestClient
from PIL import Image
from pipelines import make_sampler

from randfeat import Index
from randfeat.features.opening import open_encoder
from randfeat.index.reader import record_of
from randfeat.serve.application import application
from randfeat.serve.limits import Limits
from randfeat.serve.opening import open_service


@pytest.fixture(scope="session")
def pictures():
    return [Image.fromarray(damaged.noise(9, 12, seed=seed)) for seed in range(12)]


@pytest.fixture(scope="session")
def files(pictures, tmp_path_factory):
    """The same as bytes of PNG files."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, picture in enumerate(pictures):
        picture.save(folder / f"{number}.png")
    return [(folder / f"{number}.png").read_bytes() for number in range(len(pictures))]


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tiny"
    make_sampler().save(path)
    return path


@pytest.fixture(scope="session")
def index(model, pictures, tmp_path_factory):
    """An index of the pictures, the even ones cats."""
    path, encoder = tmp_path_factory.mktemp("index") / "index", open_encoder(str(model), SPECS[:1])
    names = [f"zoo/{number}.png" for number in range(len(pictures))]
    labels = [("cat", "dog")[number % 2] for number in range(len(pictures))]
    Index.build(path, encoder.features(pictures)[0], names, labels, encoder_record=record_of(encoder))
    return path


@pytest.fixture(scope="session")
def service(model, index):
    return open_service(str(model), SPECS, index)


@pytest.fixture
def client(service):
    """The service with small limits."""
    limits = Limits(size=SIZE, pixels=1 << 20, images=16, seconds=300, requests=8, queue=40, batch=8)
    with TestClient(application(service, limits), base_url=HOST, raise_server_exceptions=False) as made:
        yield made
