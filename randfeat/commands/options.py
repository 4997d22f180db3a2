"""Flags that several commands share, each declared once; what they stand for; and what several commands report.

`add_X` declares a flag on a parser or a group; the functions below turn parsed arguments into a device, a model or a
source of images. Importing this module imports no heavy library, so that help is instant.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from ..data.sources import Source, TokenSource
    from ..pipeline.pipeline import Pipeline

Flags = argparse._ActionsContainer  # a parser, or a group of one

LISTED, LISTED_BESIDE_FILE = 100, 10  # skipped images that are named on standard error
SOME_SKIPPED = 3  # exit code of a command that read all images but some, which it lists
DTYPES = ("float32", "bfloat16")
DEBUG_HELP = "show the traceback of an error"
MODEL_HELP = (
    "directory of a model, short name such as arpg-l, official file of weights, or owner/name on the hub; "
    "random:MODEL is the same network with random weights"
)


# the parser of one action of a command -------------------------------------------------------------------------------


def add_action(
    actions: argparse._SubParsersAction, name: str, summary: str, description: str
) -> argparse.ArgumentParser:
    """Return the new parser of one action, such as `knn` of `randfeat probe`, with --debug."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser: argparse.ArgumentParser = actions.add_parser(
        name, help=summary, description=description, formatter_class=formatter
    )
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=DEBUG_HELP)
    parser.set_defaults(parser=parser)  # whose usage `main` shows with an unknown flag
    return parser


def whole_number(low: int) -> Callable[[str], int]:
    """Return the type of a flag that takes a whole number from `low` on."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[+-]?\d+", text) or int(text) < low:
            raise argparse.ArgumentTypeError(f"expected a whole number from {low}, got {text}")
        return int(text)

    return parse


# what is read and written --------------------------------------------------------------------------------------------


def add_model(parser: Flags, summary: str = MODEL_HELP) -> None:
    """Add MODEL."""
    parser.add_argument("model", metavar="MODEL", help=summary)


def add_images(parser: Flags, name: str = "images", required: bool = True) -> None:
    """Add IMAGE ... (or QUERY ..., as `name` says), of which `find_images` makes a list of files."""
    metavar = {"images": "IMAGE", "queries": "QUERY"}[name]
    count = "+" if required else "*"
    parser.add_argument(name, nargs=count, type=Path, metavar=metavar, help="image files, and folders of them")


def add_data(parser: Flags, summary: str = "the images: a folder, a list, archives or a dataset") -> None:
    """Add DATA, which `open_data` opens."""
    parser.add_argument("data", metavar="DATA", help=summary)


def add_index(parser: Flags, form: Callable[[str], Any] = Path, more: str = "") -> None:
    """Add INDEX. form: makes the argument of a text. more: other forms, for the help."""
    summary = f"directory of an index, as `randfeat index build` made{more}"
    parser.add_argument("index", type=form, metavar="INDEX", help=summary)


def add_filters(parser: argparse.ArgumentParser) -> None:
    """Add --label and --path, of the rows of an index."""
    filters = parser.add_argument_group("filters")
    filters.add_argument("--label", nargs="+", action="extend", default=[], metavar="L", help="of one of these labels")
    filters.add_argument(
        "--path", nargs="+", action="extend", default=[], metavar="GLOB", help="with a path like these"
    )


def add_moved_model(parser: Flags) -> None:
    """Add --model, of the model that read an index."""
    parser.add_argument("--model", metavar="MODEL", help="the model that read the index, where it lies now if it moved")


def add_split(parser: Flags, data: str = "DATA") -> None:
    """Add --split."""
    parser.add_argument(
        "--split",
        metavar="NAME",
        help=f"part of {data} to read, where it has splits: train, val, ...; several as train,val; or all",
    )


def add_labels(parser: Flags, column: bool = True) -> None:
    """Add --labels and, with `column`, --label-column."""
    parser.add_argument("--labels", type=Path, metavar="FILE", help="labels of the images, where they lie elsewhere")
    if column:
        parser.add_argument("--label-column", metavar="NAME", help="column of the labels in a table (label)")


def add_spec(parser: Flags, summary: str) -> None:
    """Add --spec of any number of feature specs: a list, empty by default."""
    parser.add_argument("--spec", nargs="+", action="extend", default=[], metavar="S", help=summary)


def add_out(parser: Flags, default: str | None = None, metavar: str = "DIR", required: bool | None = None) -> None:
    """Add -o/--out. metavar: DIR for a folder of files. required: by default where there is no default."""
    parser.add_argument(
        "-o",
        "--out",
        type=_folder if metavar == "DIR" else Path,
        default=None if default is None else Path(default),
        required=default is None if required is None else required,
        metavar=metavar,
        help="where to write" + ("" if default is None else f" ({default})"),
    )


def _folder(name: str) -> Path:
    """Return the path of a folder for results; an error where the name is that of one file."""
    from ..data.sources.opening import FILES

    path = Path(name)
    if path.suffix.lower() in FILES and not path.is_dir():
        raise argparse.ArgumentTypeError(
            f"{name} is the name of a file, and a folder of files is written: leave {path.suffix} out"
        )
    return path


def add_name(parser: Flags, of: str, **nargs: Any) -> None:
    """Add --name, a list of names or None. of: what has the name."""
    parser.add_argument("--name", metavar="NAME", help=f"name of {of} (the last two parts of its path)", **nargs)


def add_format(parser: Flags, choices: Sequence[str] = ("table", "json")) -> None:
    """Add --format; the first choice is the default."""
    parser.add_argument("--format", choices=choices, default=choices[0], help=f"form of the output ({choices[0]})")


# how something is trained --------------------------------------------------------------------------------------------


def add_recipe(parser: Flags, required: bool = True) -> None:
    """Add --config and, with changes of its fields, --set."""
    parser.add_argument("--config", required=required, metavar="RECIPE", help="name of a recipe, or a YAML file")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="FIELD=VALUE", help="change fields of the recipe"
    )


def add_held_out(parser: Flags, default: float) -> None:
    """Add --held-out, None where it is not given. default: the share that stands for."""
    parser.add_argument(
        "--held-out", type=float, metavar="X", help=f"else this share of DATA ({default}; 0 keeps the last weights)"
    )


def add_every(parser: Flags) -> None:
    """Add --every."""
    parser.add_argument(
        "--every", type=whole_number(1), default=10, metavar="N", help="steps between lines of train.csv (10)"
    )


# what is computed ----------------------------------------------------------------------------------------------------


def add_seed(parser: Flags, of: str) -> None:
    """Add --seed. of: what it decides."""
    parser.add_argument("--seed", type=int, default=0, metavar="S", help=f"seed of {of} (0)")


def add_class(parser: Flags, of: str = "the result", required: bool = False) -> None:
    """Add --class, stored as `cls`. of: what it is the class of."""
    more = "" if required else " (none)"
    parser.add_argument(
        "--class", dest="cls", required=required, metavar="CLASS", help=f"class of {of}, an index or a name{more}"
    )


def add_bias(parser: Flags, places: str) -> None:
    """Add --bias, which `read_bias` reads. places: the rows and columns of one by place."""
    parser.add_argument(
        "--bias",
        type=Path,
        metavar="FILE",
        help=f"favour or forbid tokens: .npy of floats added to their logits, (vocabulary,) or {places}; -inf forbids",
    )


def add_orders(parser: Flags, default: int, of: str) -> None:
    """Add --orders. of: what is averaged over the random orders."""
    parser.add_argument(
        "--orders", type=int, default=default, metavar="K", help=f"random orders that {of} is averaged over ({default})"
    )


# on which machine ----------------------------------------------------------------------------------------------------


def machine(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Return the group of flags of the machine."""
    return parser.add_argument_group("machine")


def add_device(parser: Flags) -> None:
    """Add --device, which `pick_device` picks."""
    parser.add_argument("--device", default="auto", help="cuda, mps or cpu (auto: the first of them that is there)")


def add_dtype(parser: Flags, of: str = "the network", note: str = "faster on a GPU") -> None:
    """Add --dtype, which `dtype_of` reads. note: what bfloat16 does."""
    parser.add_argument("--dtype", choices=DTYPES, default=DTYPES[0], help=f"of {of} (float32); bfloat16 is {note}")


def add_batch_size(parser: Flags, of: str = "images") -> None:
    """Add --batch-size."""
    parser.add_argument("--batch-size", type=int, default=64, metavar="B", help=f"{of} computed at a time (64)")


def add_workers(parser: Flags) -> None:
    """Add --workers."""
    parser.add_argument("--workers", type=int, metavar="N", help="processes that decode images (as many as processors)")


# what the arguments stand for ----------------------------------------------------------------------------------------


def pick_device(args: argparse.Namespace, doing: str | None = None) -> torch.device:
    """Return the device of --device. doing: tell on standard error which one `auto` chose, as "DOING on cuda"."""
    import sys

    from ..utils import devices, distributed

    device = devices.pick(args.device)
    if doing is not None and args.device == "auto" and distributed.rank() == 0:
        print(f"{doing} on {device}", file=sys.stderr)
    return device


def dtype_of(args: argparse.Namespace) -> torch.dtype:
    """Return the dtype of --dtype."""
    import torch

    return getattr(torch, args.dtype)


def load_model(args: argparse.Namespace, seed: int = 0) -> Pipeline:
    """Return MODEL on --device, its generator in --dtype. seed: of the weights of `random:MODEL`."""
    from ..pipeline.pipeline import load

    return load(args.model, device=pick_device(args), dtype=dtype_of(args), seed=seed)


def read_bias(args: argparse.Namespace, check: Callable[[torch.Tensor], object]) -> torch.Tensor | None:
    """Return the array of --bias as a tensor, None without the flag.

    check: raises a ValueError for one that does not fit; it and what is wrong with the file name the file.
    """
    import numpy as np
    import torch

    if args.bias is None:
        return None
    try:
        with args.bias.open("rb") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    except IsADirectoryError:
        raise ValueError(f"{args.bias} is a folder: name the .npy file of a bias") from None
    except (ValueError, EOFError, MemoryError):
        raise ValueError(f"{args.bias} is no .npy file of numbers: write the bias by numpy.save") from None
    try:
        if array.dtype.kind != "f":
            raise ValueError(f"a bias holds floats, got {array.dtype}: save it as float32")
        bias = torch.from_numpy(array.astype(np.float32))
        check(bias)
    except ValueError as error:
        raise ValueError(f"{args.bias}: {error}") from None
    return bias


def open_data(args: argparse.Namespace) -> Source | TokenSource:
    """Return DATA with --split, --labels and --label-column."""
    from ..data.sources import open_source

    return open_source(args.data, args.split, args.labels, getattr(args, "label_column", None))


def check_out_file(args: argparse.Namespace) -> None:
    """Raise an OSError or a ValueError for an --out, if there is one, that is a folder or lies in INDEX."""
    if args.out and args.out.is_dir():
        raise IsADirectoryError(f"{args.out} is a folder: name a file in it")
    if args.out and Path(args.index).resolve() in args.out.resolve().parents:
        raise ValueError(f"{args.out} lies in the index: choose another file")


# what is reported ----------------------------------------------------------------------------------------------------


@contextmanager
def too_large_a_batch(args: argparse.Namespace, device: torch.device) -> Iterator[None]:
    """Raise a RuntimeError that names --batch-size where the block runs out of the device's memory."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError:
        reason = f"no room for {args.batch_size} images at a time on {device}: choose a smaller --batch-size"
        raise RuntimeError(reason) from None


def list_skipped(
    skipped: Sequence[tuple[str, str]], out: Path | None = None, why: str = "since they cannot be read"
) -> int:
    """Tell on standard error which images were skipped, and why; return the exit code.

    skipped: path and reason of each. why: the reason of all in one clause. out: folder that gets all of them as
    skipped.csv; without one a hundred are told. A list of an earlier run in that folder goes where there is nothing to
    list.
    """
    import sys

    from ..data.errors import reasons
    from ..data.store import SKIPPED, as_csv
    from ..utils import atomic

    if out is not None and not skipped:
        (out / SKIPPED).unlink(missing_ok=True)
    if not skipped:
        return 0
    where = "" if out is None else f", listed in {out / SKIPPED}"
    print(f"{len(skipped):,} skipped, {why}{where}: {reasons(skipped)}", file=sys.stderr)
    shown = LISTED if out is None else LISTED_BESIDE_FILE
    for path, reason in skipped[:shown]:
        print(f"  {path}: {reason}", file=sys.stderr)
    if len(skipped) > shown:
        print(f"  and {len(skipped) - shown:,} more", file=sys.stderr)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        atomic.write_bytes(out / SKIPPED, as_csv([("path", "reason"), *skipped]))
    return exit_code(skipped)


def exit_code(skipped: Sequence[object]) -> int:
    """Return SOME_SKIPPED where images were skipped, else 0; 0 under torchrun, which takes any other for a crash."""
    from ..utils import distributed

    return SOME_SKIPPED if skipped and distributed.world_size() == 1 else 0


def write_or_print(args: argparse.Namespace, text: str) -> None:
    """Write a text to --out and tell where, or print it where that is not given."""
    import sys

    from ..utils import atomic

    if args.out is None:
        print(text)
    else:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_bytes(args.out, f"{text}\n".encode("utf-8", "backslashreplace"))
        print(f"written to {args.out}", file=sys.stderr)


def short_name(text: str) -> str:
    """Return the name of a model, a store or a folder for tables: of each path the last two parts."""
    parts = re.split(r"(random:|timm:|open_clip:|likelihood:|[@,])", text)
    return "".join(part if i % 2 else _last_two(part) for i, part in enumerate(parts))


def _last_two(path: str) -> str:
    return "/".join([part for part in PurePath(path).parts if part not in (PurePath(path).anchor, "..")][-2:])


def in_line(name: str) -> str:
    """Return a name with line breaks and other unprintable characters escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in name)
