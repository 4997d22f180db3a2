"""Compiled extraction: one shape of batch, so that no program is compiled for the last one, and none breaks."""

import numpy as np
import pytest
import torch
from damaged import noise_picture
from pipelines import make_pipeline

from randfeat.cli import main
from randfeat.data.sources import open_source
from randfeat.features.extract import extract
from randfeat.features.generator_encoder import GeneratorEncoder
from randfeat.features.store import FeatureStore
from randfeat.models import MODELS, packed


@pytest.fixture
def programs(monkeypatch):
    """Programs that the compiler makes; they run as they were recorded."""
    made = []

    def backend(graph, inputs):
        made.append(graph)
        return graph.forward

    monkeypatch.setattr(packed, "OPTIONS", {"backend": backend})
    torch.compiler.reset()
    yield made
    torch.compiler.reset()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for number in range(11):
        noise_picture(4, 6, 1, seed=number).save(folder / f"{number:02}.png")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(MODELS))
def test_one_program_for_each_kind_of_layer_serves_all_batches(name, photos, programs, tmp_path):
    """`fullgraph` raises where a program would break. 11 images in batches of 4: the last batch has 3 of them."""
    pipeline, source = make_pipeline(name), open_source(str(photos))
    eager = extract(GeneratorEncoder(pipeline), source, tmp_path / "eager", 4, 0).as_numpy()
    encoder = GeneratorEncoder(pipeline)
    encoder.compile(4)
    first = encoder.encode(torch.from_numpy(np.stack([encoder.prepare(source.read(0))])))[0]
    count = len(programs)
    assert 0 < count <= 3  # ARPG has layers of two kinds, and the first of the second reads one mask token for all
    compiled = extract(encoder, source, tmp_path / "compiled", 4, 0).as_numpy()
    np.testing.assert_allclose(compiled, eager, rtol=0, atol=1e-5)
    np.testing.assert_allclose(first[0], eager[0], rtol=0, atol=1e-5)
    assert len(programs) == count


@pytest.mark.slow
def test_orders_and_shifts_are_split_into_equal_batches(photos, programs, monkeypatch):
    """Three orders of 256 passes at most are 85 images: 90 of them are two batches of one shape."""
    pipeline = make_pipeline("randar")
    images = np.random.default_rng(0).integers(0, 256, (90, 4, 6), dtype=np.uint8)
    specs = ["random*3/full/token/L1/mean/mean", "raster/full/token/L1/mean/mean/shifts2"]
    eager = [pipeline.features(images, spec) for spec in specs]
    for spec, expected in zip(specs, eager, strict=True):
        torch.compiler.reset()
        programs.clear()
        pipeline.compile(90)
        np.testing.assert_allclose(pipeline.features(images, spec, 90), expected, rtol=0, atol=1e-5)
        assert len(programs) == 1


@pytest.mark.slow
def test_the_command_compiles(photos, programs, tmp_path):
    make_pipeline("arpg").save(tmp_path / "model")
    said = ["extract", str(tmp_path / "model"), str(photos), "--workers", "0", "--batch-size", "4", "--device", "cpu"]
    assert main([*said, "-o", str(tmp_path / "eager")]) == 0
    assert not programs
    assert main([*said, "-o", str(tmp_path / "compiled"), "--compile"]) == 0
    assert 0 < len(programs) <= 3
    eager, compiled = (FeatureStore.open(tmp_path / name).as_numpy() for name in ("eager", "compiled"))
    np.testing.assert_allclose(compiled, eager, rtol=0, atol=1e-5)
