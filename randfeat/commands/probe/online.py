"""Linear probes whose features are computed anew from random crops in every epoch."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from randfeat.data.loader import default_workers
from randfeat.data.sources import Source, TokenSource
from randfeat.data.sources.folder import FileSource
from randfeat.features.encoder import Encoder
from randfeat.features.generator_encoder import GeneratorEncoder
from randfeat.probes import FeatureSet, Labelled, evaluate_online

from ..options import dtype_of, pick_device, short_name
from .inputs import TEST_SHARE, Part, given_names, open_data, open_model, part_of, train_and_test
from .options import protocol
from .tables import write


def measure_online(text: str, data: str, args: argparse.Namespace) -> None:
    """Measure one model on DATA, whose images lie in files, and write record and table into `args.out`."""
    if args.recipe is None or args.baselines or args.probe != "linear":
        raise ValueError("--online is for `probe linear` with a --recipe, without --baselines")
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ValueError("--online runs in one process: leave torchrun out")
    (given,) = given_names([text], args)
    encoder = open_model(text, args.spec, pick_device(args), dtype_of(args), args.seed)
    sources = open_data(data, args.split, args.labels, args.label_column)
    parts = [part_of(source, args.group) for source in sources]
    train, test = train_and_test(parts, TEST_SHARE if args.test_share is None else args.test_share, args.seed)
    ends = [Labelled({}, part.labels, part.paths, part.groups) for part in (train, test)]
    name = given or f"{short_name(text)} {encoder.specs[0]} online"
    prints = {"data": " ".join(source.fingerprint() for source in sources)}
    prints["weights"] = str(encoder.record()["weights"])
    files = _files(sources[0], train), _files(sources[-1], test)
    record = evaluate_online(
        FeatureSet(name, *ends, fingerprints=prints),
        files,
        encode_floats(encoder),
        protocol(args),
        input_side(encoder),
        default_workers() if args.workers is None else args.workers,
        args.batch_size,
    )
    record.save(args.out)
    write([record], args.out, data)


def encode_floats(encoder: Encoder) -> Callable[[Tensor], dict[str, Tensor]]:
    """Return the function from float32 images (B, 3, size, size) in [0, 1] to features by feature spec."""

    def encode(pixels: Tensor) -> dict[str, Tensor]:
        levels = (pixels * 255).round().to(torch.uint8)  # encoders take whole levels
        prepared = levels.movedim(1, -1) if isinstance(encoder, GeneratorEncoder) else levels
        return {spec: torch.from_numpy(x) for spec, x in zip(encoder.specs, encoder.encode(prepared), strict=True)}

    return encode


def input_side(encoder: Encoder) -> int:
    """Return the side in pixels of an encoder's input; a ValueError unless it is a square of three channels."""
    encoder.check_reads_pictures("--online")
    if isinstance(encoder, GeneratorEncoder):
        shape = (encoder.pipeline.tokenizer.channels, *encoder.pipeline.image_size)
    else:
        shape = encoder.prepare.config["input_size"]  # type: ignore[attr-defined]
    if shape[0] != 3 or shape[1] != shape[2]:
        found = f"{shape[1]} x {shape[2]} pixels of {shape[0]} channels"
        raise ValueError(f"{encoder.name} reads {found}: --online is for models of square colour images")
    return shape[1]


def _files(source: Source | TokenSource, part: Part) -> list[Path]:
    if not isinstance(source, FileSource):
        raise ValueError(
            f"{source.name} is no folder or list of image files, which --online reads anew in every epoch: give one"
        )
    file_of = dict(zip(source.paths, source.files, strict=True))
    return [Path(source.root, file_of[path]) for path in part.paths.tolist()]
