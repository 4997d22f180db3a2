"""The rules of the house: imports run one way, nothing lies loose, files and functions are short, docstrings plain.

Imports are read from the source, those inside functions and under TYPE_CHECKING too.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
INSTALLED = {"randfeat": "randfeat", "probes": "randfeat.probes", "pretrain": "randfeat.pretrain"}
LOOSE = {"__init__", "__main__", "cli", "py", "timm_models"}  # `py` is py.typed

# each room may import those of lower floors, and rooms of its own floor that are named in NEIGHBOURS
FLOORS = [
    {"utils"},
    {"data", "tokenizers", "models"},
    {"inference"},
    {"weights"},
    {"pipeline"},
    {"features"},
    {"index", "timm_models"},
    {"pretrain", "probes", "serve"},
    {"commands"},
    {"cli"},
    {"__main__"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
LAST_LINE, LONGEST_FUNCTION = 400, 80
RIDDLES = {"What", "Which", "Of", "Whether", "How", "Where", "Why", "Who", "Inside", "As", "For", "By"}


@cache
def sources() -> dict[str, Path]:
    """Return the library's modules by dotted name."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    found = {}
    for name in names:
        folder, _, inner = name.partition("/")
        if folder in INSTALLED and (ROOT / name).is_file():
            found[f"{INSTALLED[folder]}.{inner.removesuffix('.py').replace('/', '.')}"] = ROOT / name
    return found


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(module: str) -> Iterator[str]:
    """Yield the library's modules that a module imports, wherever in it."""
    known = sources()
    package = module.rpartition(".")[0].split(".")
    for node in ast.walk(tree(known[module])):
        if isinstance(node, ast.Import):
            candidates = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            candidates = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in candidates:
            parent = name.rpartition(".")[0]
            for target in (name, f"{name}.__init__", parent, f"{parent}.__init__"):
                if target in known:
                    yield target
                    break


def room(module: str) -> str:
    return module.split(".")[1]


@cache
def arrows() -> list[tuple[str, str]]:
    return sorted({(module, target) for module in sources() for target in imported(module) if module != target})


def test_every_room_has_a_floor():
    assert {room(module) for module in sources()} - {"__init__"} == set(FLOOR)


def test_imports_run_one_way():
    back = [
        f"{module} imports {target}"
        for module, target in arrows()
        if module != "randfeat.__init__" and target != "randfeat.__init__" and room(module) != room(target)
        if FLOOR[room(module)] <= FLOOR[room(target)]
    ]
    assert back == []


def test_nothing_inside_imports_the_front_door():
    front = {"randfeat.__init__", "randfeat.__main__"}
    assert [arrow for arrow in arrows() if arrow[1] in front and room(arrow[0]) not in ("cli", "commands")] == []


def test_probes_work_on_arrays():
    assert [(a, b) for a, b in arrows() if room(a) == "probes" and room(b) not in ("probes", "utils")] == []


def test_pretrain_knows_no_probes():
    assert [arrow for arrow in arrows() if {room(name) for name in arrow} == {"pretrain", "probes"}] == []


def test_there_is_no_circle():
    targets = {module: {target for start, target in arrows() if start == module} for module in sources()}
    del targets["randfeat.__init__"]  # it looks names up when they are asked for
    TopologicalSorter(targets).prepare()  # its CycleError names the modules of a circle


def test_libraries_that_are_imported_are_declared():
    """Those of the standard library and of TYPE_CHECKING apart; extras count as declared."""
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    declared = {name.lower().replace("_", "-") for name in re.findall(r'"([\w-]+)(?:\[[\w,]+\])?[><=]', pyproject)}
    names = {"PIL": "pillow", "sklearn": "scikit-learn", "faiss": "faiss-cpu", "torch_fidelity": "torch-fidelity"}
    names |= {"skimage": "scikit-image", "open_clip": "open-clip-torch"}
    imported = set()
    for path in sources().values():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.partition(".")[0])
    outside = imported - set(sys.stdlib_module_names) - {"randfeat", "typing_extensions"}
    assert {names.get(name, name).lower().replace("_", "-") for name in outside} - declared == set()


def test_nothing_lies_loose():
    assert {path.name.partition(".")[0] for path in (ROOT / "randfeat").iterdir() if path.is_file()} == LOOSE


def everything() -> list[Path]:
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def test_files_are_read_in_one_sitting():
    lines = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in everything()}
    assert {name: count for name, count in lines.items() if count > LAST_LINE} == {}


def definitions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return (node for node in ast.walk(tree(path)) if isinstance(node, kinds))


def test_functions_do_one_thing():
    long = {
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1
        for path in everything()
        for node in definitions(path)
        if not isinstance(node, ast.ClassDef) and node.end_lineno - node.lineno >= LONGEST_FUNCTION
    }
    assert long == {}


@pytest.mark.parametrize("folder", ["randfeat", "probes", "pretrain", "benchmarks", "studies", "docs", "tests"])
def test_docstrings_say_it_plainly(folder):
    """A docstring begins with a verb or a noun of the field."""
    riddling = []
    for path in everything():
        if path.relative_to(ROOT).parts[0] != folder:
            continue
        for node in (tree(path), *definitions(path)):
            words = (ast.get_docstring(node) or "").split(maxsplit=1)
            if words and words[0].rstrip(",.:") in RIDDLES:
                riddling.append(f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)} {words[0]} {words[-1][:40]}")
    assert riddling == []
