"""A page in the browser: search in an index, paint in pictures, sample, read and classify.

MODEL is what randfeat.load takes, the directory of a model for instance, or timm:NAME; INDEX is what `randfeat index
build` made. Give one of them or both: with an index alone the model that read it serves the other tabs, too. A tab that
cannot do its work says why.

  Search     by a picture that is dropped or a result that is clicked, among labels and paths; near-duplicates
  Paint      draw over part of a picture, and the model makes it anew
  Sample     choose a class and watch a picture being decoded
  Read       the features of a picture as colours, by any feature spec
  Classify   which class makes a picture likeliest

The page is on 127.0.0.1: nobody else reaches it, and it asks nothing of the network. It answers to the names
localhost and 127.0.0.1 alone, and to those of --allow-host. Uploads are deleted when it ends.

examples:
  randfeat app --index photos.index
  randfeat app --model digits_demo/models/randar
  randfeat app --index photos.index --model arpg-l --device cuda --dtype bfloat16

exit code: 0 when Ctrl-C ends it, 1 after an error, one sentence.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence

from .. import options

# gradio reads these when it is imported; by default it reports usage to its makers and asks for newer versions,
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
# and after each event computes how long all of them took, for a page of statistics that this page does not have
os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(10**9)

HOW_TO_RESUME = "Nothing was changed."
PORT = 7860


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the arguments of `randfeat app`."""
    parser.usage = "randfeat app [--index INDEX] [--model MODEL] [options]"
    parser.add_argument("--index", metavar="INDEX", help="the index to search")
    parser.add_argument("--model", metavar="MODEL", help="the model that paints, samples, reads and classifies")
    parser.add_argument("--port", type=int, default=PORT, help=f"of the page; 0 takes a free one ({PORT})")
    parser.add_argument("--no-browser", action="store_true", help="print the address, and open nothing")
    parser.add_argument(
        "--allow-host",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="names of this machine that the page is asked by, behind a proxy for instance (localhost, 127.0.0.1)",
    )
    machine = options.machine(parser)
    options.add_device(machine)
    options.add_dtype(machine, "MODEL's network")


def run(args: argparse.Namespace) -> int:
    """Open the page, and serve it until Ctrl-C."""
    import webbrowser

    from ...utils import distributed, progress

    if args.index is None and args.model is None:
        raise ValueError("there is nothing to show: give --index, --model or both")
    hosts = checked_hosts(args.allow_host)
    try:
        from . import server, state
    except ModuleNotFoundError as error:
        if error.name not in ("gradio", "fastapi", "uvicorn"):
            raise
        raise RuntimeError("the page needs gradio: pip install 'randfeat[app]'") from None
    with progress.warnings_as_lines(), distributed.ended_by_sigterm(), server.bound(args.port) as listening:
        device = options.pick_device(args)
        opened = state.open_all(args.model, args.index, str(device), options.dtype_of(args))
        try:
            with server.served(opened, listening, hosts) as thread:
                address = server.address(listening)
                print(f"{address} is open, on {device}; Ctrl-C ends it", flush=True)
                if not args.no_browser and has_screen():
                    webbrowser.open(address)
                thread.join()
        except KeyboardInterrupt:
            print("\nstopped", file=sys.stderr, flush=True)
            if server.computes():
                os._exit(0)  # torch aborts where the interpreter ends during a computation
    return 0


def checked_hosts(names: Sequence[str]) -> Sequence[str]:
    """Return names of hosts; a ValueError for one with a port, an address or a pattern for all names."""
    for name in names:
        if not re.fullmatch(r"(\*\.)?[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?", name):
            raise ValueError(f"--allow-host {name}: give the name of a host alone, such as box.example.org")
    return names


def has_screen() -> bool:
    """Return whether a browser can open a window; without one, `webbrowser` may start one inside the terminal."""
    return sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
