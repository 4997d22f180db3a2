"""The command `randfeat`: its subcommands, and how each of them ends.

A subcommand's module is imported when it is called, and heavy libraries after its arguments are read, so that help is
instant. The module has `add_arguments(parser, command)`, `run(args)`, which returns an exit code or None, and
HOW_TO_RESUME; its docstring is the help, unless `add_arguments` sets another.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from .commands.options import DEBUG_HELP


class Command(NamedTuple):
    """A subcommand: its module in `commands`, and a line about it."""

    module: str
    summary: str


COMMANDS = {
    "app": Command("app", "browser page on this machine: search, edit, sample, read features and classify"),
    "classify": Command("likelihood", "zero-shot classification: the class that makes an image likeliest"),
    "demo": Command("demo", "sample, edit, probe, classify and search with the package's models; one page in a minute"),
    "edit": Command("edit_images", "regenerate the masked part of an image as something of a class"),
    "export": Command("export", "write a model as a program from images to features: .pt2 or .onnx"),
    "extract": Command("extract", "write the features of all images of a data set to disk"),
    "fid": Command("fid", "judge samples: FID, precision, recall and Inception Score; search for a guidance scale"),
    "index": Command("index", "build, update and measure an index of images for similarity search"),
    "info": Command("info", "describe a model, a tokenizer or a file of weights, without loading the weights"),
    "inpaint": Command("edit_images", "regenerate the masked part of an image, given the rest of it"),
    "make": Command("make", "make a small data set of real images: digits, digits in clutter, letters, photographs"),
    "map": Command("map", "draw images on a map of what a model finds alike, as a picture or a page; or export them"),
    "outpaint": Command("edit_images", "extend an image beyond its borders, to any size"),
    "pretrain": Command("pretrain", "train a generator on image tokens; resumes where it was stopped"),
    "probe": Command(
        "probe", "evaluate features: k-NN, linear, few-shot, retrieval, segmentation, ...; with intervals"
    ),
    "sample": Command("sample", "sample images into a folder: PNG files, a grid and one .npz"),
    "search": Command("search", "find the images of an index that are most similar to others"),
    "serve": Command("serve", "serve a model over HTTP: features, classes, samples and neighbours of images"),
    "surprise": Command("likelihood", "per-token negative log-likelihood (surprisal) of images, as heat maps"),
    "tokenize": Command("tokenize", "write the tokens of all images of a data set to disk, for training"),
    "tokenizer": Command("tokenizer", "train a tokenizer on your own images; measure reconstructions of a tokenizer"),
    "vary": Command("edit_images", "draw variations of an image"),
}


def build_parser(command: str | None) -> argparse.ArgumentParser:
    """Return the parser; only the arguments of `command` are filled in."""
    parser = argparse.ArgumentParser(
        prog="randfeat",
        description="Features, samples and likelihoods from random-order autoregressive image generators.",
    )
    parser.add_argument("--version", action="version", version=f"randfeat {version('randfeat')}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module_name, summary) in COMMANDS.items():
        formatter = argparse.RawDescriptionHelpFormatter
        sub = commands.add_parser(name, help=summary, description=summary, formatter_class=formatter)
        sub.add_argument("--debug", action="store_true", help=DEBUG_HELP)
        if name == command:
            module = import_module(f".commands.{module_name}", __package__)
            sub.description = module.__doc__
            sub.set_defaults(parser=sub)  # whose usage `main` shows with an unknown flag
            module.add_arguments(sub, name)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand and return the exit code. argv: the arguments (those of the process)."""
    words = list(sys.argv[1:] if argv is None else argv)
    command = next((word for word in words if not word.startswith("-")), None)
    args, unknown = build_parser(command).parse_known_args(words)
    if unknown:
        args.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    module = import_module(f".commands.{COMMANDS[args.command].module}", __package__)

    def run() -> int | None:
        with _alone(getattr(args, "out", None)):
            return module.run(args)

    return run_program(f"randfeat {args.command}", run, module.HOW_TO_RESUME, args.debug)


def _alone(out: Path | None) -> AbstractContextManager[None]:
    """Return a block in which no other command writes `out`; of torchrun's processes the first one sees to that.

    Raises a ValueError for an `out` on an object store.
    """
    if out is None or os.environ.get("RANK", "0") != "0":
        return nullcontext()
    from .utils.resume import sole_writer
    from .utils.uris import check_on_disk

    check_on_disk(out)
    return sole_writer(out)


def run_program(program: str, run: Callable[[], int | None], how_to_resume: str, debug: bool = False) -> int:
    """Run a program and return its exit code: that of `run`, 1 after an error, 130 after Ctrl-C.

    An error is one sentence on standard error, or with `debug` its traceback. how_to_resume: what to tell after Ctrl-C.
    """
    try:
        code = run() or 0
        sys.stdout.flush()
    except KeyboardInterrupt:
        print(f"\n{program}: stopped. {how_to_resume}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `randfeat ... | head` closed the pipe: nothing went wrong
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, OSError, RuntimeError) as error:
        if debug:
            raise
        print(f"{program}: {_message(error)}", file=sys.stderr)
        return 1
    return code


def _message(error: Exception) -> str:
    """Return an error as one sentence, without the system's number of it; with advice where a disk is full."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    name = error.filename2 or error.filename
    message = error.strerror if name is None else f"{os.fspath(name)}: {error.strerror}"
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return f"{message}: a folder was expected there, choose another place"
    full = error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
    return f"{message}: make some room and run the same again, nothing is lost" if full else message
