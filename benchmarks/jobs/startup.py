"""Start-up of `import randfeat` and of commands, beside Python itself, torch and timm."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from functools import partial

from benchmarks.cases import Case, Make, Setting
from benchmarks.measure import python

COMMANDS = {
    "import randfeat": ("-c", "import randfeat"),
    "randfeat.load of a model of the package": ("-c", "import randfeat; randfeat.load('fashion-arpg-free')"),
    "randfeat --help": ("-m", "randfeat", "--help"),
    "randfeat extract --help": ("-m", "randfeat", "extract", "--help"),
    "randfeat info": ("-m", "randfeat", "info", "fashion-arpg-free"),
}
PEERS = {"python": ("-c", "pass"), "import torch": ("-c", "import torch"), "import timm": ("-c", "import timm")}


def startup(setting: Setting) -> Iterator[Case]:
    """Yield processes from their start to their end."""

    def make(words: tuple[str, ...]) -> Make:
        return lambda: partial(subprocess.run, python(*words), check=True, stdout=subprocess.DEVNULL)

    chosen = dict([*COMMANDS.items()][: setting.pick(1, len(COMMANDS), len(COMMANDS))])
    for name, words in chosen.items():
        yield Case(name, make(words), {peer: make(words) for peer, words in PEERS.items()}, unit="starts")
