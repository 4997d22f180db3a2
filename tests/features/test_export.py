"""Models as programs: each context gives the features of the model, for any number of images, in torch and in ONNX."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from pipelines import SIZE, make_pipeline

from randfeat import Pipeline
from randfeat.features import export as exporting
from randfeat.features.export import RECORD, export
from randfeat.models import MODELS, base
from randfeat.tokenizers import LlamaGenVQ

SMALL_VQ = dict(vocab_size=7, code_dim=4, width=32, multipliers=(1, 1), num_res_blocks=1)
ORDERS = {"llamagen": "raster"}
CONTEXTS = [
    (name, f"{ORDERS.get(name, 'raster+random*2')}/{context}/{stream}/L1,L-1/grid2/concat")
    for name, model in MODELS.items()
    for context in model.contexts
    for stream in model.streams
    if not (context in base.ASKED_BEHIND and stream == "token")
]
IMAGES = torch.rand(5, 1, *SIZE, generator=torch.Generator().manual_seed(5))


def by_program(path: Path, images: torch.Tensor) -> torch.Tensor:
    """Features of images by a program, run by what would run it without randfeat."""
    if path.suffix == ".pt2":
        return torch.from_numpy(torch.export.load(path).module()(images).numpy())  # needs no gradients
    onnxruntime = pytest.importorskip(
        "onnxruntime", reason="onnxruntime is not installed: pip install 'randfeat[export]'"
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["features"], {"images": images.numpy()})[0])


def check(model: Pipeline, spec: str | None, path: Path) -> None:
    if path.suffix == ".onnx":
        pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install 'randfeat[export]'")
    assert export(model, path, spec) <= 1e-4
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    for count in (1, 5):
        found = by_program(path, IMAGES[:count])
        expected = torch.from_numpy(model.features(IMAGES[:count], spec))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["arpg", "lpd", "randar", "rar"])
def test_a_program_of_torch_gives_the_features_of_the_model(name, tmp_path):
    check(make_pipeline(name), None, tmp_path / "reader.pt2")


def test_a_program_of_onnx_gives_the_features_of_the_model(tmp_path):
    check(make_pipeline("randar", num_kv_heads=1), "raster/bare/query/L1/last/mean", tmp_path / "reader.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".pt2", ".onnx"])
@pytest.mark.parametrize(("name", "spec"), CONTEXTS)
def test_each_context_gives_the_features_of_the_model(name, spec, ending, tmp_path):
    check(make_pipeline(name), spec, tmp_path / f"reader{ending}")


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".pt2", ".onnx"])
def test_maps_shifts_labels_and_the_maximum(ending, tmp_path):
    for number, spec in enumerate(
        ("raster/full/query/L2/none/mean/shifts2", "reversed/after/query/L2/max/mean/label1")
    ):
        (folder := tmp_path / str(number)).mkdir()
        check(make_pipeline("arpg"), spec, folder / f"reader{ending}")


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".pt2", ".onnx"])
def test_a_learned_tokenizer_is_part_of_the_program(ending, tmp_path):
    tokenizer = LlamaGenVQ(**SMALL_VQ).eval()
    model = Pipeline(tokenizer, make_pipeline("randar").generator)
    path = tmp_path / f"reader{ending}"
    assert export(model, path) <= 1e-4
    images = model.decode(torch.randint(7, (3, 6))).contiguous()
    torch.testing.assert_close(by_program(path, images), torch.from_numpy(model.features(images)), rtol=1e-4, atol=1e-4)


def test_a_program_holds_its_record_and_only_the_weights_it_uses(tmp_path):
    model = make_pipeline("arpg", depth=4, embed_dim=64, vocab_size=7)
    export(model, tmp_path / "first.pt2", "raster/causal/token/L1/mean/mean")
    held = {RECORD: ""}
    program = torch.export.load(tmp_path / "first.pt2", extra_files=held)
    record = json.loads(held[RECORD])
    assert record["spec"] == "raster/causal/token/L1/mean/mean"
    assert record["generator"] == model.record()["generator"]
    sizes = {name: value.numel() for name, value in program.state_dict.items()}
    assert sizes["generator.blocks.0.mlp.w1.weight"] > 0
    assert sizes["generator.blocks.1.mlp.w1.weight"] == sizes["generator.head.weight"] == 0


def test_orders_of_each_image_are_exported_by_torch_alone(tmp_path):
    spec = "random:per-image/causal/token/L2/mean/mean"
    check(make_pipeline("arpg"), spec, tmp_path / "reader.pt2")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install 'randfeat[export]'")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'randfeat[export]'")
    with pytest.raises(ValueError, match=r"leave :per-image out, or export to \.pt2"):
        export(make_pipeline("arpg"), tmp_path / "reader.onnx", spec)


def test_a_program_with_other_features_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting.readout, "pool_and_merge", lambda *given: given[0][2].mean(1) + 1e-3)
    model = make_pipeline("arpg")
    expected = model.features(IMAGES)
    monkeypatch.setattr(Pipeline, "features_of_pixels", lambda self, pixels, specs: [expected[: len(pixels)]])
    with pytest.raises(RuntimeError, match="gives other features than the model"):
        export(model, tmp_path / "reader.pt2")
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_depends_on_the_number_of_images_is_refused_in_a_sentence(tmp_path, monkeypatch):
    model = make_pipeline("arpg")
    states = type(model.generator).states
    monkeypatch.setattr(type(model.generator), "states", lambda self, *given: states(self, *given)[: len(given[0])])
    with pytest.raises(RuntimeError, match=r"^torch cannot export ARPG at .+ for any number of images: [^\n]+$"):
        export(model, tmp_path / "reader.pt2")
    assert list(tmp_path.iterdir()) == []


def test_another_ending_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"says the form: .pt2 or .onnx"):
        export(make_pipeline(), tmp_path / "reader.pth")


def test_without_the_extra_the_error_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(RuntimeError, match=r"pip install 'randfeat\[export\]'"):
        export(make_pipeline(), tmp_path / "reader.onnx")
