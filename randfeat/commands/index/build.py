"""Reads the images of DATA with MODEL, and makes an index of them in a new directory.

MODEL is what randfeat.load takes, or timm:NAME. DATA is what `randfeat extract` takes: a folder (a folder in it is a
class), a list or table of paths, archives, a data set; or a store that `randfeat extract` wrote, which was read already
(by many processes, if it is large).

The kind of index is chosen by size: few images are compared one by one (flat); many are sorted into lists, of which a
query looks at a few (ivf), as short codes where the vectors do not fit into the memory. hnsw, a graph of neighbours,
takes longer to build and more room; `randfeat index bench` says whether it is quicker on your images. How much of an
index a query looks at is measured when it is built, so that 97 % of the ten nearest are found.

--whiten K learns K principal components from the images and compares these, each with the same variance; what is added
later and queries go through the same. It may find more of the same class or, with few images for each component, less:
`randfeat probe retrieval` has it among its choices and says which.

After a kill the same command goes on. Images that cannot be read are skipped, counted and listed.

examples:
  randfeat index build digits.index demo/digits --split train --model demo/models/randar_free
  randfeat index build digits.index demo/digits --model demo/models/arpg --whiten 64
  randfeat index build photos.index photos --model timm:vit_base_patch14_dinov2 --kind hnsw
  randfeat index build photos.index features --memory 4

exit code: 0 if all images were read, 3 if some were skipped, 1 after an error, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse

from . import options

KINDS = ("auto", "flat", "ivf", "hnsw")
METRICS = ("cosine", "dot", "l2")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "randfeat index build INDEX DATA --model MODEL [options]"
    options.add_index(parser)
    options.add_data(parser)
    parser.add_argument("--model", metavar="MODEL", help="the model that reads; not for a store of features")
    parser.add_argument("--spec", metavar="S", help="which feature, as in `randfeat extract` (the model's default)")
    parser.add_argument("--kind", choices=KINDS, default="auto", help="of index (auto, which chooses by size)")
    parser.add_argument("--metric", choices=METRICS, default="cosine", help="what is near (cosine)")
    parser.add_argument(
        "--whiten",
        type=int,
        metavar="K",
        help="compare K principal components of equal variance, not the features as they are",
    )
    options.add_memory(parser)
    options.add_machine(parser)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the network")


def run(args: argparse.Namespace) -> int:
    import torch

    from randfeat.features.opening import open_encoder
    from randfeat.features.store import FeatureStore, is_store
    from randfeat.index import images
    from randfeat.utils import devices

    how = {"index_type": args.kind, "metric": args.metric, "whiten": args.whiten}
    how |= {"memory": options.memory(args), "shown": True}
    if is_store(args.data):
        if args.model:
            raise ValueError(f"{args.data} is a store of features that a model has read: leave --model out")
        index = images.build_from_store(args.index, FeatureStore.open(args.data), args.spec, **how)
        skipped = []
    else:
        if not args.model:
            raise ValueError("no model is named, which is to read the images: say --model")
        specs = [args.spec] if args.spec else []
        encoder = open_encoder(args.model, specs, devices.pick(args.device), getattr(torch, args.dtype))
        reading = {"batch_size": args.batch_size, "workers": args.workers}
        index = images.build(args.index, encoder, options.source(args), **reading, **how)
        skipped = [(path, reason) for path, reason, *_ in index.skipped]
    print(f"{len(index):,} images -> {args.index}: {index.index_type} ({index.meta['reason']})")
    return options.say_skipped(skipped)
