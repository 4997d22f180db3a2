"""Actions that write an index: build, add, sync, remove and compact."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .. import options

if TYPE_CHECKING:
    from ...features.encoder import Encoder
    from ...index import Index
    from ...index.images import Changes

TYPES = ("auto", "flat", "ivf", "hnsw")
METRICS = ("cosine", "dot", "l2")
SHOWN = 10  # images that could not be read and are named

# action -> its help
HELP = {
    "build": """Read the images of DATA with MODEL, and make an index of their features in a new directory.

MODEL is what randfeat.load takes, timm:NAME, or open_clip:NAME@FILE, a text-image model with the weights of a file: its
index can be searched by text. DATA is what `randfeat extract` takes: a folder (a folder in it is a
class), a list or table of paths, archives, a data set; or a store that `randfeat extract` wrote, whose images a model
has read already (in many processes, where there are many).

The type of index is chosen by size: a query is compared with every image (flat) while there are few; with the images of
a few clusters (ivf) where there are many, as short codes where the vectors do not fit into memory. hnsw, a graph of
neighbours, takes longer to build and more memory; `randfeat index bench` tells whether it is quicker on your images.
How much of an index a query looks at is measured when it is built, so that 97 % of the ten nearest are found.

--whiten K learns K principal components of the images and compares these, each scaled to the same variance; images that
are added later and queries go through the same. It may find more of the same class or, with few images for each
component, less: `randfeat probe retrieval` has it among its choices and tells which.

After a kill the same command goes on. Images that cannot be read are skipped, counted and listed.

examples:
  randfeat index build digits.index digits_demo/digits --split train --model digits_demo/models/randar_free
  randfeat index build digits.index digits_demo/digits --model digits_demo/models/arpg --whiten 64
  randfeat index build photos.index photos --model timm:vit_base_patch14_dinov2 --type hnsw
  randfeat index build photos.index photos --model open_clip:ViT-B-32@open_clip_model.safetensors
  randfeat index build photos.index features --memory 4

exit code: 0 if all images were read, 3 if some were skipped, 1 after an error, 130 after Ctrl-C.
""",
    "add": """Read the images of DATA into an index, with the model and the feature spec that it was built with.

Images that are in it already and have not changed since are left alone; those that have changed are read again and keep
their id. Nothing is removed: see `randfeat index sync`. DATA is what `randfeat extract` takes. After a kill the same
command goes on.

examples:
  randfeat index add photos.index more_photos
  randfeat index add digits.index digits_demo/digits --split test

exit code: 0 if all images were read, 3 if some were skipped, 1 after an error, 130 after Ctrl-C.
""",
    "sync": """Bring an index up to date with DATA, a folder or a list of image files, as rsync does with a folder.

Images that are new in DATA are read into the index; those that have changed are read again and keep their id; those
that the index holds from below this folder, and DATA does not name any more, are dropped (with --split also those of
other splits). A file that was renamed or moved is known by its bytes: it keeps its id and is not read again, and nor
are copies. A new label is taken over without reading. Images that the index holds from elsewhere stay.
It all happens at once: until then, a search sees the index as it was. After a kill the same command goes on.

examples:
  randfeat index sync photos.index photos --dry-run
  randfeat index sync photos.index photos

exit code: 0 if all images were read, 3 if some were skipped, 1 after an error, 130 after Ctrl-C.
""",
    "remove": """Drop images from an index; the files stay where they are.

PATH is an image, a folder, of which all images are dropped, or a pattern: `*` stands for any characters, `?` for one; a
pattern that is not absolute describes the end of a path. Dropped images are gone from every search at once; `randfeat
index compact` frees their disk space.

examples:
  randfeat index remove photos.index photos/blurred.jpg photos/2019
  randfeat index remove photos.index 'screenshots/*.png'
""",
    "compact": """Rebuild an index as one part of the type that was asked for, without the images that were removed.

Added images lie in parts of their own, which are compared one by one, and removed ones are only marked; after many
changes an index is slower and larger than it need be. A search meanwhile sees the index as it was, and the same images
under the same ids afterwards.

examples:
  randfeat index compact photos.index
""",
}


def add_arguments(parser: argparse.ArgumentParser, action: str) -> None:
    """Add the arguments of one action."""
    usage = {"build": "DATA --model MODEL [options]", "remove": "PATH ...", "compact": "[--memory GB]"}
    parser.usage = f"randfeat index {action} INDEX {usage.get(action, 'DATA [options]')}"
    options.add_index(parser)
    if action == "remove":
        parser.add_argument("paths", nargs="+", metavar="PATH", help="images, folders, patterns")
    if action in ("build", "add", "sync"):
        options.add_data(parser)
        data = parser.add_argument_group("data")
        options.add_split(data)
        options.add_labels(data)
    if action == "build":
        parser.add_argument("--model", metavar="MODEL", help="the model that reads; not for a store of features")
        parser.add_argument("--spec", metavar="S", help="feature spec, see `randfeat extract --help` (the model's own)")
        parser.add_argument("--type", choices=TYPES, default="auto", help="type of index (auto: chosen by size)")
        parser.add_argument("--metric", choices=METRICS, default="cosine", help="similarity or distance (cosine)")
        parser.add_argument(
            "--whiten", type=int, metavar="K", help="compare K whitened principal components: see above"
        )
    if action == "sync":
        help = "print what would happen: + read, ~ read again, = new label, > moved, * copy of a known one, - dropped"
        parser.add_argument("--dry-run", action="store_true", help=help)
    if action in ("build", "compact"):
        help = "memory for the vectors; more of them are compressed and cut into parts (half of the machine's)"
        parser.add_argument("--memory", type=float, metavar="GB", help=help)
    if action in ("add", "sync"):
        options.add_moved_model(parser)
    if action in ("build", "add", "sync"):
        machine = options.machine(parser)
        options.add_batch_size(machine)
        options.add_workers(machine)
        options.add_device(machine)
        if action == "build":
            options.add_dtype(machine)


# actions -------------------------------------------------------------------------------------------------------------


def build(args: argparse.Namespace) -> int:
    """Make an index of images, or of a feature store."""
    from ...features.opening import open_encoder
    from ...features.store import FeatureStore, is_store
    from ...index import images

    how = {"index_type": args.type, "metric": args.metric, "whiten": args.whiten}
    how |= {"memory": _memory(args), "shown": True}
    if is_store(args.data):
        if args.model:
            raise ValueError(f"{args.data} is a store of features that a model has read: leave --model out")
        index = images.build_from_store(args.index, FeatureStore.open(args.data), args.spec, **how)
    else:
        if not args.model:
            raise ValueError(f"no model is named to read the images of {args.data}: give --model")
        specs = [args.spec] if args.spec else []
        encoder = open_encoder(args.model, specs, options.pick_device(args), options.dtype_of(args))
        batches = {"batch_size": args.batch_size, "workers": args.workers}
        index = images.build(args.index, encoder, options.open_data(args), **batches, **how)
    print(f"{len(index):,} images -> {args.index}: {index.index_type} ({index.meta['reason']})")
    return _report_skipped([(path, reason) for path, reason, *_ in index.skipped])


def add(args: argparse.Namespace, drop: bool = False) -> int:
    """Read images into an index. drop: remove those that DATA does not name any more."""
    from ...index import Index, images

    index, source = Index.open(args.index), options.open_data(args)
    plan = images.plan(index, source, drop)
    encoder = _encoder(args, index) if plan.to_read else None
    more = {"batch_size": args.batch_size, "workers": args.workers, "shown": True}
    changes = images.sync(index, source, encoder, drop=drop, **more)
    print(f"{summary(changes)}; {len(index):,} images in {args.index}")
    if index.wants_compaction():
        print(f"randfeat index compact {args.index} would make searching quicker")
    unchanged = {path for path in plan.table["path"].take(plan.unreadable).to_pylist()} if plan.unreadable else set()
    before = [(path, reason) for path, reason, *_ in index.skipped if path in unchanged]
    return _report_skipped([*changes.skipped, *before])


def sync(args: argparse.Namespace) -> int:
    """Bring an index up to date, or print what would change."""
    from ...index import Index, images

    if not args.dry_run:
        return add(args, drop=True)
    plan = images.plan(Index.open(args.index), options.open_data(args))
    lines = []
    for sign, rows in (("+", plan.new), ("~", plan.changed), ("=", plan.relabelled)):
        lines += [f"{sign} {path}" for path in plan.table["path"].take(rows).to_pylist()] if rows else []
    paths = plan.table["path"]
    lines += [f"> {old} -> {paths[number].as_py()}" for number, old in plan.moved.items()]
    lines += [f"* {paths[number].as_py()}" for number in plan.copied]
    lines += [f"- {path}" for _, path in plan.gone]
    print("\n".join(lines) or "nothing to do")
    return 0


def remove(args: argparse.Namespace) -> None:
    """Drop images."""
    from ...index import Index

    index = Index.open(args.index)
    ids = {id_ for path in args.paths for id_ in _ids(index, path)}
    removed = index.remove(sorted(ids))
    print(f"{removed:,} removed; {len(index):,} images in {args.index}")


def compact(args: argparse.Namespace) -> None:
    """Rebuild an index as one part."""
    from ...index import Index

    index = Index.open(args.index)
    before = index.stats()["bytes"]
    if not index.compact(_memory(args), shown=True):
        print(f"{args.index} is compact already")
        return
    after = index.stats()["bytes"]
    print(f"{len(index):,} images in {args.index}: {index.index_type} ({index.meta['reason']})")
    print(f"{before / 1e6:.1f} MB before, {after / 1e6:.1f} MB now")


RUN = {"build": build, "add": add, "sync": sync, "remove": remove, "compact": compact}


# parts of the actions ------------------------------------------------------------------------------------------------


def summary(changes: Changes) -> str:
    """Return the counts that are not 0, in words."""
    counts = {
        "added": changes.added,
        "read again": changes.changed,
        "with another label": changes.relabelled,
        "renamed or moved": changes.moved,
        "copies of known ones": changes.copied,
        "removed": changes.removed,
        "unchanged": changes.unchanged,
    }
    return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count) or "nothing to do"


def _memory(args: argparse.Namespace) -> int | None:
    """Return --memory in bytes."""
    if args.memory is not None and not args.memory > 0:
        raise ValueError(f"--memory must be more than 0, got {args.memory:g}")
    return None if args.memory is None else int(args.memory * 1e9)


def _encoder(args: argparse.Namespace, index: Index) -> Encoder:
    """Return the encoder that read the index."""
    return index.encoder(str(options.pick_device(args)), args.model)


def _ids(index: Index, path: str) -> list[int]:
    """Return the ids of an image, a folder or a pattern; a ValueError if there is none."""
    import glob

    from ...index import Filter

    absolute = os.path.abspath(path)  # noqa: PTH100
    exact = [id_ for id_ in index.find([path, absolute]) if id_ is not None]
    for pattern in (f"{glob.escape(absolute)}/*", path):
        exact = exact or index.ids(Filter(paths=pattern))
    if not exact:
        raise ValueError(f"{index.directory} holds nothing called {path}: give an image, a folder or a pattern")
    return exact


def _report_skipped(skipped: Sequence[tuple[str, str]]) -> int:
    """Print a line for each of the first images that could not be read, and return the exit code."""
    from ...features.extract import reasons

    if not skipped:
        return 0
    print(f"{len(skipped):,} skipped, since they cannot be read: {reasons(skipped)}")
    for path, reason in skipped[:SHOWN]:
        print(f"  {path}: {reason}")
    if len(skipped) > SHOWN:
        print(f"  and {len(skipped) - SHOWN:,} more, in the .csv file of the index")
    return options.SOME_SKIPPED
