"""Code blocks of Markdown pages: found, run, or checked without being run.

The language of a block says what a test does with it: `python` and `bash` are run, of `sh` (a download, a cluster,
hours) the arguments are read by the real parsers, `text` and the like are not code. A line of `bash` that ends in
`# exit 3` has to end so: some images of its folder cannot be read. A service that a page starts runs until `end`.
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
import textwrap
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from randfeat import cli

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w+)\n(?P<code>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
EXIT = re.compile(r"# exit (\d)$")
INLINE = re.compile(r"`((?:randfeat|torchrun) [^`]+)`")
SERVICE = " service"  # among the names of a page, the service that it has started
RUN, CHECKED, NO_CODE = {"python", "bash"}, {"sh"}, {"text", "yaml", "json"}


@dataclass(frozen=True)
class Block:
    """A fenced block. line: of its first line of code, from 1."""

    language: str
    code: str
    line: int


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(match["language"], textwrap.dedent(match["code"]), text.count("\n", 0, match.start()) + 2)
        for match in FENCE.finditer(text)
    ]


def commands(code: str) -> Iterator[list[str]]:
    """Yield the words of each command of a shell block: comments dropped, lines that end in a backslash joined."""
    yield from (words for words, _ in with_exit_codes(code))


def with_exit_codes(code: str) -> Iterator[tuple[list[str], int]]:
    """Yield the words of each command, and the exit code that it shall have: what a comment `# exit N` says, else 0."""
    for line in code.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            said = EXIT.search(line)
            yield words, int(said[1]) if said else 0


def table_commands(page: Path) -> Iterator[list[str]]:
    """Yield the words of the commands of ours that stand in a page's tables, as code."""
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("|"):
            found = (shlex.split(match) for match in INLINE.findall(line))
            yield from (words for words in found if "..." not in words and "randfeat" in words)


def run(block: Block, page: Path, names: dict[str, Any]) -> None:
    """Run a block of `python` with the names that earlier ones of the page have left, or one of `bash`."""
    if block.language == "python":
        code = "\n" * (block.line - 1) + block.code  # so that an error names the page's line
        exec(compile(code, str(page), "exec", dont_inherit=True), names)
        return
    for words, wanted in with_exit_codes(block.code):
        program, *arguments = words
        assert program == "randfeat", f"{page.name}:{block.line}: {program} is not run by tests, make it a block of sh"
        if arguments[0] == "app":
            visit(arguments)
        elif arguments[0] == "serve":
            check(words)
            names[SERVICE] = begin(arguments)
        else:
            check(words)
            assert cli.main(arguments) == wanted, f"{page.name}:{block.line}: {shlex.join(words)}"


def begin(arguments: list[str]) -> subprocess.Popen[str]:
    """Start a service, and return it when it answers; `end` ends it."""
    service = subprocess.Popen([sys.executable, "-m", "randfeat", *arguments], stdout=subprocess.PIPE, text=True)
    assert service.stdout is not None
    address = service.stdout.readline().split()[0]
    assert b"ok" in urllib.request.urlopen(f"{address}/healthz").read()
    return service


def end(names: dict[str, Any]) -> None:
    """End the service that a page has started, if it has."""
    if (service := names.pop(SERVICE, None)) is not None:
        with service:
            service.terminate()
        assert service.returncode == 0


def visit(arguments: list[str]) -> None:
    """Start a page, wait until it is there, and end it."""
    command = [sys.executable, "-m", "randfeat", *arguments, "--port", "0", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as page:
        assert page.stdout is not None
        address = page.stdout.readline().split()[0]
        assert b"randfeat" in urllib.request.urlopen(address).read()
        page.terminate()
    assert page.returncode == 0


def check(words: list[str]) -> None:
    """Check a command without running it. Raises an AssertionError that shows it."""
    command = shlex.join(words)
    if words[0] == "torchrun" or words[:3] == ["python", "-m", "randfeat"]:
        words = words[words.index("randfeat") :]
    if words[0] == "randfeat":
        code = None
        try:
            unabbreviated(cli.build_parser(words[1])).parse_args(words[1:])
        except SystemExit as end:
            code = end.code
        assert not code, f"{command}: its arguments are refused"
    elif words[:2] == ["pip", "install"]:
        project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        for extra in re.findall(r"\[(.+)\]", words[-1]):
            assert f"\n{extra} = [" in project, command
    elif words[0] == "python":  # a script of the checkout: it is there, and has these flags
        script = ROOT / words[1]
        if words[1] == "-m":
            module = ROOT / words[2].replace(".", "/")
            script = module / "__main__.py" if module.is_dir() else module.with_suffix(".py")
        source = script.read_text(encoding="utf-8")
        for flag in (word for word in words if word.startswith("--")):
            assert f'"{flag}"' in source, f"{command}: {script.name} has no {flag}"
    else:
        raise AssertionError(f"{command}: a test cannot check this program")


def unabbreviated(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Return the parser, which from now on takes flags as they are written only."""
    parser.allow_abbrev = False
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                unabbreviated(inner)
    return parser
