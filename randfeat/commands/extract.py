"""Features of all images of DATA, read by MODEL, into a store on disk, and on where it was stopped.

MODEL is what randfeat.load takes, the directory of a model for instance, or timm:NAME, any network of timm with its
published weights (timm:NAME@FILE with others), prepared as its authors do.

DATA is a folder of images (a folder in it is a class), a .txt, .csv or .parquet list of paths (and labels), a dataset
of the Hugging Face hub or one that was saved to disk, the pattern of WebDataset archives, ImageNet as it comes, or a
token cache of the model's tokenizer.

DIR then holds

  features.npy     float32, a row for each image (features-0.npy, ... with several specs)
  rows.parquet     path and label of each row
  skipped.csv      path and reason of each image that could not be read
  meta.json        all that decided the numbers, written last

and opens with randfeat.FeatureStore.open(DIR). Several specs share decoding, tokenizer and passes.
The same command goes on after a kill, also in another number of processes, and makes the same bytes as if nothing had
been; with other settings it is refused.

A spec says how one of our models reads, as orders/context/stream/layers/pool/merge[/label][/shifts]:

  orders     raster, reversed, columns, hierarchical, random*K, or a permutation such as [3,1,2,0]; several joined by +
  context    what a token sees: causal as trained, full everything, echo, after, bare
  stream     token, the image's own states, or query, those that predict
  layers     L3, L3,L6, L-1 the last, L0.5 half way
  pool       mean, max, last, grid2 (the means of 2 x 2 cells), or none, a map
  merge      of orders and layers: mean or concat
  label      label3, a class that is given while reading
  shifts     shifts2, the mean over 2 x 2 places half a token apart, in four times the time

The default is the model's own, for RandAR and ARPG raster/full/query/L-1/mean/mean. For timm's models it is pooled,
what their classifier reads; others are pooled/shifts2, L6/mean, L-1/cls or L6,L12/grid2/concat/shifts2.

examples:
  randfeat extract demo/models/randar photos -o features
  randfeat extract arpg-l photos -o features --spec raster/full/query/L-1/grid2/mean/shifts2
  randfeat extract timm:vit_base_patch14_dinov2 imagenet --split val -o dinov2
  torchrun --nproc-per-node 8 -m randfeat extract arpg-l imagenet --split train -o features --dtype bfloat16

exit code: 0 if all images were read, 3 if some were skipped (0 under torchrun, which takes any other for a crash), 1
after an error, one sentence, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import errno
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..features.store import FeatureStore

HOW_TO_RESUME = "Run the same command again: what is done is kept."
SOME_SKIPPED = 3  # exit code


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    parser.usage = "randfeat extract MODEL DATA -o DIR [options]"
    parser.add_argument("model", metavar="MODEL", help="the model that reads")
    parser.add_argument("data", metavar="DATA", help="the images")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="where to write")
    what = parser.add_argument_group("what to read")
    what.add_argument(
        "--spec",
        nargs="+",
        action="extend",
        default=[],
        metavar="S",
        help="orders/context/stream/layers/pool/merge[/label][/shifts]; of timm's models pooled (the default) or "
        "layers/pool[/merge][/shifts]",
    )
    what.add_argument("--split", metavar="NAME", help="train, val, ... of data that has splits")
    what.add_argument("--labels", type=Path, metavar="FILE", help="labels that do not lie with the images")
    what.add_argument("--label-column", metavar="NAME", help="the column of labels in a table, if none is called label")
    machine = parser.add_argument_group("on which machine")
    machine.add_argument("--batch-size", type=int, default=64, metavar="B", help="images at a time (64)")
    machine.add_argument("--workers", type=int, metavar="N", help="processes that decode (one for each processor)")
    machine.add_argument("--device", default="auto", help="cuda, mps or cpu; auto (the default) takes the first there")
    machine.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the network")
    machine.add_argument("--compile", action="store_true", help="through torch's compiler, for large runs on a GPU")


def run(args: argparse.Namespace) -> int:
    import torch

    from ..data.sources import open_source
    from ..data.sources.table import without_labels
    from ..data.store import META
    from ..features.extract import extract
    from ..features.opening import open_encoder
    from ..utils import devices, distributed, progress

    with progress.warnings_as_lines(), distributed.ended_by_sigterm(), distributed.group():
        device = devices.pick(args.device)
        encoder = open_encoder(args.model, args.spec, device, getattr(torch, args.dtype))
        if args.compile:
            encoder.compile()
        source = open_source(args.data, args.split, args.labels, args.label_column)
        first, complete = distributed.rank() == 0, (args.out / META).exists()
        if first and source.labels is None and (why := without_labels(source.name)):
            print(f"note: {source.name} gives no labels: {why}", file=sys.stderr)
        if args.device == "auto" and first and not complete:
            print(f"reading on {device}", file=sys.stderr)
        try:
            store = extract(encoder, source, args.out, args.batch_size, args.workers)
        except torch.OutOfMemoryError:
            reason = f"no room for {args.batch_size} images at a time on {device}: choose a smaller --batch-size"
            raise RuntimeError(reason) from None
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            raise OSError(f"no room left for {args.out}: make some, and run the same command again") from None
        if first:
            print(f"{args.out} was complete already" if complete else summary(store))
        return SOME_SKIPPED if store.skipped and distributed.world_size() == 1 else 0


def summary(store: FeatureStore) -> str:
    """What was made, in a line for each spec and one for what was skipped."""
    from ..data.store import SKIPPED
    from ..features.extract import reasons

    lines = [f"{len(store):,} images -> {store.directory}"]
    lines += [f"  {spec}: features {store.as_numpy(spec).shape}" for spec in store.specs]
    if skipped := store.skipped:
        lines.append(f"{len(skipped):,} skipped, listed in {store.directory / SKIPPED}: {reasons(skipped)}")
    return "\n".join(lines)
