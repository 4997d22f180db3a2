"""Extract the features of all images of DATA with MODEL, into a store on disk; a stopped run is resumed.

MODEL is what randfeat.load takes, the directory of a model for instance, or timm:NAME, any network of timm with its
published weights (timm:NAME@FILE with others), with the preprocessing that its authors use, or open_clip:NAME@FILE, a
text-image model of open_clip with the weights of a file (open_clip:NAME/TAG with published ones, open_clip:DIR as
open_clip saves it); random:MODEL and random:timm:NAME have random weights, to compare with.

DATA is a folder of images (a folder in it is a class), a .txt, .csv or .parquet list of paths (and labels), a dataset
of the Hugging Face hub or one that was saved to disk, the pattern of WebDataset archives, ImageNet as it comes, IDX
files as MNIST's, or a token cache of the model's tokenizer. Images are read as pictures of 8 bits, grey or RGB; a
model whose tokenizer has a range of values reads those of TIFFs, arrays (.npy, H x W x C) and other files, and of so
many channels as it has (docs/guides/values.md).

DIR then holds

  features.npy     float32, a row for each image (features-0.npy, ... with several specs)
  rows.parquet     path and label of each row
  skipped.csv      path and reason of each image that could not be read
  inputs.npy       size, time of change and SHA-256 of each file: the same command notices files that have changed
  meta.json        all that decided the numbers, written last

and opens with randfeat.FeatureStore.open(DIR). Several specs share decoding, tokenizer and passes.
The same command goes on after a kill, also in another number of processes, and writes the same bytes as without it;
with other settings it is refused.

A feature spec of our models is orders/context/stream/layers/pool/merge[/label][/shifts]:

  orders     raster, reversed, columns, hierarchical, halton, locality, random*K, or a permutation such as [3,1,2,0];
             several joined by +
  context    tokens that a token attends to: causal (as trained), full (all), echo, after or bare
  stream     token, the hidden states of the image's tokens, or query, those that predict them
  layers     L3, L3,L6, L-1 (the last), L0.5 (half of the depth)
  pool       mean, max, last, grid2 (the means of 2 x 2 cells), or none, a map
  merge      of orders and layers: mean or concat
  label      label3, the class that the model is given
  shifts     shifts2, the mean over 2 x 2 shifts by half a token, in four times the time

With --engine ray (pip install 'randfeat[ray]') the shards are made by --workers actors of Ray, on this machine or on
those of the cluster that RAY_ADDRESS names, all of which see MODEL, DATA and DIR under the same paths. An actor that is
killed is started again, with its shard; the store is the same as without Ray, and either goes on with the other's.

The default is the model's own, for RandAR and ARPG raster/full/query/L-1/mean/mean. The default of timm's models is
pooled, the input of their classifier; others are pooled/shifts2, L6/mean, L-1/cls or L6,L12/grid2/concat/shifts2.
open_clip's models have one, embedding: the vector of length 1 that texts share.

examples:
  randfeat extract digits_demo/models/randar photos -o features
  randfeat extract arpg-l photos -o features --spec raster/full/query/L-1/grid2/mean/shifts2
  randfeat extract timm:vit_base_patch14_dinov2 imagenet --split val -o dinov2
  randfeat extract arpg-l photos -o features --engine ray --workers 8
  torchrun --nproc-per-node 8 -m randfeat extract arpg-l imagenet --split train -o features --dtype bfloat16

exit code: 0 if all images were read, 3 if some were skipped (0 under torchrun, which takes any other for a crash), 1
after an error, one sentence, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from . import options

if TYPE_CHECKING:
    from ..features.extract import Elsewhere
    from ..features.store import FeatureStore

HOW_TO_RESUME = "Run the same command again: what is done is kept."


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the arguments of `randfeat extract`."""
    parser.usage = f"randfeat {command} MODEL DATA -o DIR [options]"
    options.add_model(parser, "model that reads the images: see above")
    options.add_data(parser, "the images: see above")
    options.add_out(parser)
    options.add_spec(parser, "feature specs: see above (the model's default)")
    data = parser.add_argument_group("data")
    options.add_split(data)
    options.add_labels(data)
    machine = options.machine(parser)
    options.add_batch_size(machine)
    options.add_workers(machine)
    options.add_device(machine)
    options.add_dtype(machine)
    machine.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="ray: actors of Ray make the features (local)"
    )
    compiled = "torch.compile, for large runs on a GPU: one program, whose batches all have --batch-size images"
    machine.add_argument("--compile", action="store_true", help=compiled)


def run(args: argparse.Namespace) -> int:
    """Extract, alone or as one of torchrun's processes."""
    from ..data.sources.table import without_labels
    from ..data.store import META
    from ..features.extract import extract
    from ..features.opening import open_encoder
    from ..utils import distributed, progress

    with progress.warnings_as_lines(), distributed.ended_by_sigterm(), distributed.group():
        first, complete = distributed.rank() == 0, (args.out / META).exists()
        device = options.pick_device(args)
        encoder = open_encoder(args.model, args.spec, device, options.dtype_of(args))
        if args.compile:
            encoder.compile(args.batch_size)
        source = options.open_data(args)
        elsewhere = _by_ray(args) if args.engine == "ray" else None
        if first and source.labels is None and (why := without_labels(source.name)):
            print(f"note: {source.name} gives no labels: {why}", file=sys.stderr)
        if not complete:
            options.pick_device(args, "reading")
        with options.too_large_a_batch(args, device), _full_disk(args.out):
            store = extract(encoder, source, args.out, args.batch_size, args.workers, elsewhere=elsewhere)
        if first:
            print(f"{args.out} was complete already" if complete else summary(store))
        return options.exit_code(store.skipped)


def _by_ray(args: argparse.Namespace) -> Elsewhere:
    """Return the function that makes shards by Ray. Raises where that cannot be."""
    from ..features.ray_engine import Job, by_ray
    from ..utils import distributed

    if args.compile or distributed.world_size() > 1:
        raise ValueError("the engine ray goes with neither --compile nor torchrun: leave one of them out")
    data = args.data, args.split, args.labels, getattr(args, "label_column", None)
    job = Job(args.model, args.spec or [], args.device, args.dtype, data, args.batch_size)
    return by_ray(job, args.workers)


@contextmanager
def _full_disk(directory: Path) -> Iterator[None]:
    """Raise an OSError that tells what to do where the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise OSError(f"no room left for {directory}: make some, and run the same command again") from None


def summary(store: FeatureStore) -> str:
    """Return a line for the store, one for each spec, and one for skipped images."""
    from ..data.errors import reasons
    from ..data.store import SKIPPED

    lines = [f"{len(store):,} images -> {store.directory}"]
    lines += [f"  {spec}: features {store.as_numpy(spec).shape}" for spec in store.specs]
    if skipped := store.skipped:
        lines.append(f"{len(skipped):,} skipped, listed in {store.directory / SKIPPED}: {reasons(skipped)}")
    return "\n".join(lines)
