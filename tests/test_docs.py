"""README and the documentation: code runs, commands are accepted, links and pictures are there, diagrams are right."""

from __future__ import annotations

import csv
import importlib.util
import re
import shutil
from pathlib import Path

import blocks
import damaged
import official
import pytest
import torch
from PIL import Image

from randfeat import models, pretrain, tokenizers
from randfeat.commands.demo import study

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = [page for page in sorted(DOCS.rglob("*.md")) if blocks.blocks(page)]
OTHERS = [README, ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
KEPT = {"0000", "0001", "0007", "1500", "1501"}  # digits that pages name
RUNS = [page for page in PAGES if {block.language for block in blocks.blocks(page)} & blocks.RUN]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture
def place(demo, tmp_path, monkeypatch, hub):
    """A folder to run a page's blocks in: the short demo with a fifth of its digits, photographs, and a hub that has
    a small ARPG-L; recipes take a hundredth of their steps.
    """
    official.shrink(monkeypatch, "arpg_l")
    official.publish(hub, "arpg-l")
    there = tmp_path / "place"
    (there / "demo" / "digits" / "images").mkdir(parents=True)
    (there / "photos").mkdir()
    (there / "demo" / "models").symlink_to(demo / "models", target_is_directory=True)
    with (demo / "digits" / "metadata.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    rows = [row for i, row in enumerate(rows) if i % 5 == 0 or Path(row[0]).stem in KEPT]
    for path, *_ in rows:
        shutil.copyfile(demo / "digits" / path, there / "demo" / "digits" / path)
    with (there / "demo" / "digits" / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    for number in range(6):
        Image.fromarray(damaged.noise(50, 40, seed=number)).save(there / "photos" / f"{number}.jpg")
    whole = pretrain.read_recipe
    monkeypatch.setattr(pretrain, "read_recipe", lambda name, changes=(): study.shortened(whole(name, changes), 0.01))
    monkeypatch.chdir(there)
    return there


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNS, ids=name)
def test_the_blocks_of_a_page_run(page, place, monkeypatch):
    names: dict[str, object] = {}
    monkeypatch.setattr(models, "MODELS", dict(models.MODELS))  # which a page adds to
    monkeypatch.setattr(tokenizers, "TOKENIZERS", dict(tokenizers.TOKENIZERS))
    for block in blocks.blocks(page):
        if block.language in blocks.RUN:
            blocks.run(block, page, names)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_is_not_run_is_accepted(page):
    for block in blocks.blocks(page):
        assert block.language in blocks.RUN | blocks.CHECKED | blocks.NO_CODE, f"{page}:{block.line}"
        if block.language in blocks.CHECKED:
            for words in blocks.commands(block.code):
                blocks.check(words)


@pytest.mark.parametrize("page", OTHERS, ids=name)
def test_commands_in_tables_are_accepted(page):
    for words in blocks.table_commands(page):
        blocks.check(words)


@pytest.mark.parametrize("page", OTHERS, ids=name)
def test_links_and_pictures_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if "://" not in target and target != "command-line.md":  # which the build writes
            assert (page.parent / target).exists(), target


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in DOCS.rglob("*.md"):
        assert f": {page.relative_to(DOCS)}\n" in navigation


def test_diagrams_are_what_the_code_draws():
    specification = importlib.util.spec_from_file_location("diagrams", DOCS / "diagrams" / "draw.py")
    assert specification is not None
    assert specification.loader is not None
    diagrams = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(diagrams)
    for title, draw in diagrams.DIAGRAMS.items():
        kept = (DOCS / "diagrams" / f"{title}.svg").read_text(encoding="utf-8")
        assert draw().svg() == kept, f"{title}.svg is not up to date: python docs/diagrams/draw.py"
    (causal,) = diagrams.attention(diagrams.small("randar"), "causal", "query")
    assert torch.equal(causal, torch.ones(7, 7).tril().bool())


def test_citation_and_changelog_say_what_is_released():
    release = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert release is not None
    assert f"version: {release[1]}\n" in (ROOT / "CITATION.cff").read_text()
    assert release[1].partition(".dev")[0] in (ROOT / "CHANGELOG.md").read_text()
