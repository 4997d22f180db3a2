"""Export of a model at one feature spec: a program from images to features that runs without randfeat.

`.pt2` is torch's own form, `torch.export.load(path).module()(images)`; `.onnx` is read by onnxruntime and others. Both
take any number of images, hold only the weights that the feature needs, and are compared with the model before they
get their name.
"""

from __future__ import annotations

import io
import json
import shutil
import tempfile
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from ..inference import readout
from ..inference.readout import FeatureSpec
from ..models import Generator, orders
from ..pipeline.pipeline import Pipeline

ENDINGS = (".pt2", ".onnx")
CLOSE = 1e-4  # largest difference from the model, absolute and relative together
RECORD = "randfeat.json"  # file in a .pt2, and key in an .onnx, with what decided the numbers
ONE_FILE = 1 << 30  # bytes of weights above which those of an .onnx lie beside it: protobuf ends at 2 GB
OPSET = 20


class ImageReader(nn.Module):
    """The way from images to features at one spec, without anything that depends on the number or values of images.

    Raises a ValueError for a spec that the model cannot do.
    """

    order: Tensor | None

    def __init__(self, pipeline: Pipeline, spec: str | FeatureSpec | None = None) -> None:
        super().__init__()
        self.spec = pipeline.resolve_spec(spec)
        self.tokenizer, self.generator = pipeline.tokenizer, with_real_rope(pipeline.generator)
        some = torch.zeros(1, self.generator.num_tokens, dtype=torch.int64)
        orders_of_passes = [
            None if one.per_image else readout.pass_order(one, self.generator, some) for one in self.spec.passes
        ]
        fixed = None if None in orders_of_passes else torch.stack(orders_of_passes)  # type: ignore[arg-type]
        self.register_buffer("order", fixed, persistent=False)  # (P, 1, N)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return the features (B, F), or (B, F, h, w) of pool `none`, of images (B, channels, H, W) in [0, 1]."""
        shifts = self.spec.shifts
        if shifts == 1:
            return self._read(self.tokenizer.encode(images).flatten(1))
        places = readout.sub_patch_shifts(images, self.tokenizer.stride, shifts).flatten(0, 1)
        found = self._read(self.tokenizer.encode(places).flatten(1))
        return readout.merge_shifts(found.unflatten(0, (-1, shifts**2)))

    def _read(self, tokens: Tensor) -> Tensor:
        """Return the features of tokens (B, N)."""
        generator, spec, batch = self.generator, self.spec, tokens.shape[0]
        if self.order is None:
            order = torch.cat([readout.pass_order(one, generator, tokens) for one in spec.passes])
        else:
            order = self.order.expand(-1, batch, -1).flatten(0, 1)
        flat = tokens.repeat(len(spec.passes), 1)
        label = generator.num_classes if spec.label is None else spec.label
        labels = torch.full((1,), label).expand(flat.shape[0])
        layers = sorted({int(layer) for layer in spec.layers})
        states = generator.states(flat, labels, order, layers, spec.context, spec.stream)
        by_layer: dict[int | float, Tensor] = {
            layer: orders.scatter(state, order) for layer, state in zip(layers, states, strict=True)
        }
        return readout.pool_and_merge(by_layer, order, generator.grid, spec)


def with_real_rope(generator: Generator) -> Generator:
    """Return a copy that shares the parameters, whose rope table holds real numbers: ONNX has no complex ones."""
    made = generator.__class__.__new__(generator.__class__)
    vars(made).update(vars(generator))
    table = torch.view_as_real(generator.rope(torch.device("cpu")))
    vars(made)["rope"] = lambda device: table
    return made


def export(pipeline: Pipeline, path: str | Path, spec: str | FeatureSpec | None = None) -> float:
    """Write a model, which lies on the CPU in float32, to `path` as a program; return the largest difference from it.

    path: a new file that ends in .pt2 or .onnx, which appears when it is complete. spec: a feature spec, by default the
    model's own. The program takes `images`, float32 (B, channels, H, W) in [0, 1] of the model's size, and returns
    `features`, float32 (B, F), or (B, F, h, w) of pool `none`. With the weights it holds RECORD, JSON of what decided
    the numbers. The weights of an .onnx above 1 GB lie beside it, as NAME.onnx.data.

    Raises a ValueError for a wrong spec or ending, and a RuntimeError where a package is missing, where the form lacks
    an operation of the model, or where the program's features are not those of the model within 1e-4.
    """
    path = Path(path)
    if path.suffix not in ENDINGS:
        raise ValueError(f"the ending of {path} says the form: {' or '.join(ENDINGS)}")
    reader, run = ImageReader(pipeline, spec), {".pt2": _write_pt2, ".onnx": _write_onnx}[path.suffix]
    if path.suffix == ".onnx":
        _check_onnx(reader.spec)
    record = {"randfeat": version("randfeat"), **pipeline.record(), "spec": str(reader.spec)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=path.parent) as scratch:
        program = _traced(reader, pipeline)
        written = run(program, Path(scratch) / path.name, json.dumps(record))
        difference = _largest_difference(written, pipeline, reader.spec)
        for file in sorted(Path(scratch).iterdir(), reverse=True):  # the weights of an .onnx before itself
            shutil.move(file, path.parent / file.name)
    return difference


def _traced(reader: ImageReader, pipeline: Pipeline) -> ExportedProgram:
    """Return the program of a reader for any number of images, without gradients and weights that it does not use."""
    example = torch.zeros(2, pipeline.tokenizer.channels, *pipeline.image_size)
    shapes = {"images": {0: Dim("batch", min=1)}}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about its own parts
        try:
            program = torch.export.export(reader, (example,), dynamic_shapes=shapes, strict=False)
        except (torch._dynamo.exc.TorchDynamoException, GuardOnDataDependentSymNode) as error:
            model, reason = type(reader.generator).__name__, str(error).strip().splitlines()[0]
            raise RuntimeError(
                f"torch cannot export {model} at {reader.spec} for any number of images: {reason}"
            ) from error
    used = {node.name for node in program.graph.nodes if node.op == "placeholder" and node.users}
    for given in program.graph_signature.input_specs:
        if given.target in program.state_dict:
            value = program.state_dict[given.target].detach()
            value = value if given.arg.name in used else value.new_empty(0)
            program.state_dict[given.target] = nn.Parameter(value, requires_grad=False)  # results are plain arrays
    return program


def _write_pt2(program: ExportedProgram, path: Path, record: str) -> Callable[[Tensor], Tensor]:
    made = io.BytesIO()  # torch's writer of files ends the process where the disk is full
    torch.export.save(program, made, extra_files={RECORD: record})
    path.write_bytes(made.getbuffer())
    return torch.export.load(path).module()


def _check_onnx(spec: FeatureSpec) -> None:
    """Raise a RuntimeError where the packages are missing, a ValueError for what ONNX cannot compute."""
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ModuleNotFoundError:
        raise RuntimeError(
            "an export to .onnx needs onnx, onnxscript and onnxruntime: pip install 'randfeat[export]', "
            "or export to .pt2, which needs neither"
        ) from None
    if any(one.per_image for one in spec.passes):
        raise ValueError(
            f"feature spec {spec}: orders of each image's own are made by 64-bit arithmetic that ONNX lacks: "
            "leave :per-image out, or export to .pt2"
        )


def _write_onnx(program: ExportedProgram, path: Path, record: str) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    weights = sum(value.numel() * value.element_size() for value in program.state_dict.values())
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of onnxscript and of torch's exporter, about their own parts
        try:
            made: Any = torch.onnx.export(
                program, dynamo=True, verbose=False, opset_version=OPSET, output_names=["features"]
            )
        except torch.onnx.OnnxExporterError as error:
            reason = str(error.__cause__ or error).strip().splitlines()[0]
            raise RuntimeError(f"ONNX lacks an operation of this model ({reason}): export to .pt2") from error
        made.model.metadata_props[RECORD] = record
        made.save(path, external_data=weights > ONE_FILE)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


@torch.no_grad()
def _largest_difference(run: Callable[[Tensor], Tensor], pipeline: Pipeline, spec: FeatureSpec) -> float:
    """Return the largest difference of a program's features from the model's, of batches of one and of three images.

    The images are decoded from random tokens: of these the nearest codes are clear, and rounding changes none. Raises a
    RuntimeError where a difference is above CLOSE.
    """
    draw, generator, largest = torch.Generator().manual_seed(0), pipeline.generator, 0.0
    for count in (1, 3):
        tokens = torch.randint(generator.vocab_size, (count, generator.num_tokens), generator=draw)
        images = pipeline.decode(tokens).float().contiguous()
        expected = torch.from_numpy(pipeline.features_of_pixels(images, [spec])[0])
        found = run(images).detach()
        if found.shape != expected.shape or not torch.allclose(found, expected, rtol=CLOSE, atol=CLOSE):
            off = "another shape" if found.shape != expected.shape else f"{(found - expected).abs().max():.2g} off"
            raise RuntimeError(f"the exported program gives other features than the model ({off}): nothing was written")
        largest = max(largest, float((found - expected).abs().max()))
    return largest
