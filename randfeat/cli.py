"""The front door: `randfeat COMMAND`. A command's module is imported when it is called, and heavy libraries after its
arguments are read, so that help is instant."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import version

COMMANDS = {
    "app": "a page in the browser, on this machine alone: search, paint, sample, read and classify",
    "classify": "which class makes an image likeliest, without training anything: ranked names with probabilities",
    "demo": "train on handwritten digits, read, probe, search, sample and inpaint them, and show it all in one page",
    "edit": "paint the masked part of a picture anew as something of a class",
    "extract": "features of all images of a folder, a list or a dataset into a store on disk",
    "fid": "how good samples are: FID, precision, recall and Inception Score, and a search over guidance",
    "index": "find similar images: build, sync and measure an index of what a model sees in them",
    "info": "what a model, a tokenizer, a checkpoint file or a short name is, without loading or downloading weights",
    "inpaint": "paint the masked part of a picture anew, given the rest of it",
    "make": "a folder of real images to try things on: digits, digits in clutter, letters, photographs",
    "outpaint": "paint around a picture, to any size",
    "pretrain": "train a generator on image tokens, from a laptop to a cluster, and go on where it was stopped",
    "probe": "measure features: k-NN, linear, attentive, few-shot, retrieval, clusters, dense; with intervals",
    "sample": "sample images into a folder: PNG files, a grid, one .npz",
    "search": "the images of an index that are most like some others: a table, JSON or a page with pictures",
    "surprise": "where an image is unlike what the model expects: heat maps, and the numbers behind them",
    "tokenize": "tokens of all images of a folder, a list or a dataset into a cache that training reads",
    "vary": "draw pictures like one that there is",
}


def build_parser(command: str | None) -> argparse.ArgumentParser:
    """Return the parser; only the arguments of `command` are filled in."""
    parser = argparse.ArgumentParser(
        prog="randfeat",
        description="Features, samples and likelihoods from random-order autoregressive image generators.",
    )
    parser.add_argument("--version", action="version", version=f"randfeat {version('randfeat')}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        formatter = argparse.RawDescriptionHelpFormatter
        sub = commands.add_parser(name, help=summary, description=summary, formatter_class=formatter)
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
        if name == command:
            module = import_module(f".commands.{name}", __package__)
            sub.description = module.__doc__
            sub.set_defaults(parser=sub)  # whose usage an unknown option shows
            module.add_arguments(sub)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code. An error is one sentence on standard error."""
    words = list(sys.argv[1:] if argv is None else argv)
    command = next((word for word in words if not word.startswith("-")), None)
    args, unknown = build_parser(command).parse_known_args(words)
    if unknown:
        args.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    module = import_module(f".commands.{args.command}", __package__)
    return spoken(f"randfeat {args.command}", lambda: module.run(args), module.HOW_TO_RESUME, args.debug)


def spoken(program: str, run: Callable[[], int | None], how_to_resume: str, debug: bool = False) -> int:
    """Return the exit code of a program: what `run` returns, 1 after an error, which is one sentence on standard error
    unless it is debugged, or 130 after Ctrl-C."""
    try:
        code = run() or 0
        sys.stdout.flush()
    except KeyboardInterrupt:
        print(f"\n{program}: stopped. {how_to_resume}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # of `randfeat ... | head`, which has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, OSError, RuntimeError) as error:
        if debug:
            raise
        print(f"{program}: {_sentence(error)}", file=sys.stderr)
        return 1
    return code


def _sentence(error: Exception) -> str:
    """What went wrong, without the number that the system has for it."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    name = error.filename2 or error.filename
    said = error.strerror if name is None else f"{os.fspath(name)}: {error.strerror}"
    full = error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
    return f"{said}: make some room and run the same again, nothing is lost" if full else said
