"""Steps of the documentation's build: mkdocs calls the functions below, see `hooks` in mkdocs.yml.

- The packages are laid out as they are installed, so that mkdocstrings finds `randfeat.probes` and `randfeat.pretrain`.
- reference/command-line.md is written from the parsers of the commands.
- A link to a CSV file that stands alone on a line gets the table of that file below it.
- `<!-- names of: PACKAGE -->` becomes the reference of all names that a package offers.
- A page that would load anything from the network fails the build.
"""

from __future__ import annotations

import argparse
import csv
import re
import shutil
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from randfeat import cli

ROOT = Path(__file__).parents[1]
SOURCES = Path(tempfile.gettempdir()) / "randfeat-docs-sources"
TABLE = re.compile(r"^\[[^\]]+\]\((\S+\.csv)\)$", flags=re.MULTILINE)
NAMES = re.compile(r"^<!-- names of: (\S+) -->$", flags=re.MULTILINE)
FETCHED = re.compile(
    r"<(?:script|img|iframe)[^>]+src=\"?(?:https?:)?//|<link[^>]+rel=\"?stylesheet[^>]+href=\"?https?://"
)


@event_priority(100)  # before mkdocstrings reads its settings
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Lay out the sources as a wheel does."""
    shutil.rmtree(SOURCES, ignore_errors=True)
    python_alone = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "randfeat", SOURCES / "randfeat", ignore=python_alone)
    for inner in ("probes", "pretrain", "configs"):
        shutil.copytree(ROOT / inner, SOURCES / "randfeat" / inner, ignore=python_alone)
    config.plugins["mkdocstrings"].config["handlers"]["python"]["paths"] = [str(SOURCES)]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page of the command line."""
    files.append(File.generated(config, "reference/command-line.md", content=command_line()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put tables and names in."""
    folder = (Path(config.docs_dir) / page.file.src_uri).parent
    markdown = TABLE.sub(lambda match: f"{match[0]}\n\n{table(folder / match[1])}", markdown)
    return NAMES.sub(lambda match: names(match[1]), markdown)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Refuse what a reader's browser would fetch from elsewhere."""
    if found := FETCHED.search(output):
        raise PluginError(f"{page.file.src_uri} loads something from the network: {found[0]}...; keep it in docs/")
    return output


def on_post_build(config: MkDocsConfig) -> None:
    """Clean up."""
    shutil.rmtree(SOURCES, ignore_errors=True)


def table(path: Path) -> str:
    """Return a CSV file as a Markdown table; its first row is the header. `|` in a cell is escaped."""
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = [[cell.replace("|", r"\|") for cell in row] for row in csv.reader(file)]
    if not rows:
        return "*Not measured yet.*"
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def names(package: str) -> str:
    """Return the reference of all names of a package, by the modules in which they are defined."""
    module = import_module(package)
    homes: dict[str, str] = getattr(module, "_HOME", {})
    found: dict[str, list[str]] = {}
    for name in module.__all__:
        home = f"{package}.{homes[name]}" if name in homes else getattr(module, name).__module__
        found.setdefault(home, []).append(name)
    sections = []
    for home, members in sorted(found.items()):
        sections.append(f"## {home.removeprefix(package + '.')}\n")
        sections += [f"::: {home}.{name}\n" for name in members]
    return "\n".join(sections)


def command_line() -> str:
    """Return the page of all commands."""
    parts = [
        "# Command line\n\n`randfeat COMMAND` or `python -m randfeat COMMAND`. This page is made from the parsers: it "
        "is what `--help` prints.\n"
    ]
    parts += [f"- [`{name}`](#randfeat-{name}): {summary}" for name, (_, summary) in cli.COMMANDS.items()]
    for command in cli.COMMANDS:
        parser = subparsers(cli.build_parser(command))[command]
        parts.append("\n".join(section(f"randfeat {command}", parser, "##")))
    return "\n".join(parts) + "\n"


def subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def section(name: str, parser: argparse.ArgumentParser, heading: str) -> Iterator[str]:
    """Yield a command: usage, description, a table of each group of its arguments, and the commands in it."""
    usage = parser.format_usage().removeprefix("usage: ").strip()
    yield f"\n{heading} {name}\n"
    if inner := subparsers(parser):
        yield f"```text\n{(parser.description or '').strip()}\n```\n"
        for inner_name, inner_parser in inner.items():
            yield from section(f"{name} {inner_name}", inner_parser, heading + "#")
        return
    yield f"```text\n{usage}\n\n{(parser.description or '').strip()}\n```\n"
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if action.help != argparse.SUPPRESS]
        if not actions:
            continue
        yield f"| {escaped(group.title or '')} | |\n|---|---|"
        for action in actions:
            yield f"| {shown(action)} | {escaped(explained(action))} |"
        yield ""


def shown(action: argparse.Action) -> str:
    """Return an argument as it is typed."""
    wanted: Any = action.metavar
    if wanted is None:
        wanted = "{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.dest.upper()
    values = " ".join(wanted) if isinstance(wanted, tuple) else str(wanted)
    values = {0: "", "?": f"[{values}]", "*": f"[{values} ...]", "+": f"{values} ..."}.get(action.nargs or "", values)
    if action.nargs == 0:
        values = ""
    if not action.option_strings:
        return f"`{values}`"
    return ", ".join(f"`{option} {values}`".replace(" `", "`") for option in action.option_strings)


def explained(action: argparse.Action) -> str:
    """Return the help of an argument with its values filled in."""
    values = {**vars(action), "prog": ""}
    return (
        (action.help or "") % values if action.help and "%(" in action.help else (action.help or "").replace("%%", "%")
    )


def escaped(text: str) -> str:
    return text.replace("|", r"\|").replace("[", r"\[").replace("<", "&lt;").replace("*", r"\*").replace("\n", " ")
