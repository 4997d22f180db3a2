"""Export MODEL at one feature spec as a program from images to features, which runs without randfeat.

MODEL is what randfeat.load takes, the directory of a model for instance. FILE.pt2 is torch's form of a program,
FILE.onnx that of onnxruntime and others (pip install 'randfeat[export]').

The program takes images, float32 (B, channels, H, W) in [0, 1] of the model's size and any number B of them, and
returns features, float32 (B, F), or maps (B, F, h, w) of pool none. Resizing and cropping stay outside: the shorter
side is resized to the model's size, and the centre is cropped. Before it gets its name, the program is run, and its
features are compared with those of the model: they agree within 1e-4.

examples:
  randfeat export fashion-randar-free -o reader.pt2
  randfeat export digits_demo/models/arpg -o reader.onnx --spec raster/causal/query/L3/mean/mean

exit code: 0, or 1 after an error, one sentence.
"""

from __future__ import annotations

import argparse

from . import options

HOW_TO_RESUME = "Nothing was written."


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the arguments of `randfeat export`."""
    parser.usage = f"randfeat {command} MODEL -o FILE [--spec S]"
    options.add_model(parser)
    options.add_out(parser, metavar="FILE")
    parser.add_argument("--spec", metavar="S", help="feature spec, as `randfeat extract --help` says (the model's own)")


def run(args: argparse.Namespace) -> None:
    """Export, and say what was written."""
    from ..features.encoder import OPEN_CLIP, TIMM
    from ..features.export import ENDINGS, export
    from ..pipeline.pipeline import load
    from ..utils import progress

    if args.out.suffix not in ENDINGS:
        raise ValueError(f"the ending of {args.out} says the form: {' or '.join(ENDINGS)}")
    if args.model.startswith((TIMM, OPEN_CLIP)):
        raise ValueError(f"{args.model} is of another library, which exports its models itself: give one of randfeat's")
    with progress.warnings_as_lines():
        model = load(args.model)
        difference = export(model, args.out, args.spec)
    height, width = model.image_size
    size = f"(B, {model.tokenizer.channels}, {height}, {width})"
    print(f"{args.out}: images {size} in [0, 1] -> features at {model.resolve_spec(args.spec)}")
    print(f"  within {difference:.1e} of the model, {args.out.stat().st_size / 1e6:,.1f} MB")
