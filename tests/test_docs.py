"""README and the documentation: code runs, commands are accepted, links and pictures are there, diagrams are right."""

from __future__ import annotations

import csv
import dataclasses
import importlib
import re
import shutil
from pathlib import Path

import blocks
import damaged
import numpy as np
import official
import pytest
import tifffile
import torch
from PIL import Image

from randfeat import models, pretrain, tokenizers
from randfeat.commands.demo import trained
from randfeat.data.builtin import photographs
from randfeat.utils import arrays

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
    (there / "digits_demo" / "digits" / "images").mkdir(parents=True)
    (there / "photos").mkdir()
    (there / "digits_demo" / "models").symlink_to(demo / "models", target_is_directory=True)
    with (demo / "digits" / "metadata.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    rows = [row for i, row in enumerate(rows) if i % 5 == 0 or Path(row[0]).stem in KEPT]
    for path, *_ in rows:
        shutil.copyfile(demo / "digits" / path, there / "digits_demo" / "digits" / path)
    with (there / "digits_demo" / "digits" / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    for number in range(6):
        Image.fromarray(damaged.noise(50, 40, seed=number)).save(there / "photos" / f"{number}.jpg")
    whole = pretrain.read_recipe
    monkeypatch.setattr(photographs, "FOLDERS", ())  # those of Python's packages are enough, and quick
    monkeypatch.setattr(pretrain, "read_recipe", lambda name, changes=(): brief(whole(name, changes)))
    plan = pretrain.plan_finetuning

    def shorter_plan(*given):
        planned = plan(*given)
        return dataclasses.replace(planned, recipe=brief(planned.recipe))

    monkeypatch.setattr(pretrain, "plan_finetuning", shorter_plan)
    monkeypatch.chdir(there)
    return there


def brief(recipe):
    """A recipe with a hundredth of its steps, of which some are left."""
    return trained.shortened(recipe, min(1, max(0.01, 4 / recipe.training.steps)))


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNS, ids=name)
def test_the_blocks_of_a_page_run(page, place, monkeypatch):
    names: dict[str, object] = {}
    monkeypatch.setattr(models, "MODELS", dict(models.MODELS))  # which a page adds to
    monkeypatch.setattr(tokenizers, "TOKENIZERS", dict(tokenizers.TOKENIZERS))
    try:
        for block in blocks.blocks(page):
            if block.language in blocks.RUN:
                blocks.run(block, page, names)
    finally:
        blocks.end(names)
    check_what_is_left(page.stem, names, place)


def check_what_is_left(page, names, place):
    """Results of a page's blocks are those that the page states."""
    if page == "read-features":
        assert names["features"].shape == (1797, 256)
        assert names["shifted"].shape == (1797, 64)
        assert names["maps"].shape == (10, 64, 4, 4)
        with Image.open(place / "map.png") as image_map:
            assert image_map.size == (1600, 1600)
    elif page == "extract":
        assert names["store"].as_numpy().shape == (6, 256)
    elif page == "integrations":
        assert names["backbone"].num_classes == names["logits"].shape[1] == 10
        assert names["rows"].column_names == ["image", "features"]
        assert len(names["first"]) == 64
    elif page == "export":
        assert names["features"].shape == (5, 64)
        assert names["largest_difference"] <= 1e-4
    elif page == "serve":
        assert names["found"].shape == (6, 64)
    elif page == "sample":
        assert names["eights"].shape == names["quick"].shape == (16, 1, 8, 8)
        assert names["dogs"].shape == (2, 3, 256, 256)
        assert arrays.count_images(place / "samples" / "samples.npz") == 20
        assert arrays.count_images(place / "quick" / "samples.npz") == 2
        assert {(place / name).is_file() for name in ("three.gif", "order.png")} == {True}
    elif page == "edit":
        for picture, image in zip(names["completed"], names["images"], strict=False):
            assert (np.asarray(picture)[:4] == (image[:4] * 255).round()).all()
        assert [one.size for one in names["wider"]] == [(16, 12)] * 4
        for command in ("inpaint", "edit", "outpaint", "vary"):
            assert len(list((place / command / "images").iterdir())) == 4
    elif page == "control":
        assert (place / "samples" / "control.png").is_file()
        assert len(list((place / "inpaint" / "images").iterdir())) == 4
    elif page == "likelihood":
        assert names["maps"].shape == (10, 4, 4)
        assert (place / "zero_shot" / "report.html").is_file()
    elif page == "measure":
        for folder in ("measured", "compared", "swept"):
            assert (place / folder / "report.html").is_file()
    elif page == "find-similar":
        assert len(names["in_memory"]) == 1157
        assert (place / "similar.html").read_text().count("<img") == 51
    elif page == "my-photos":
        assert (place / "features" / "skipped.csv").read_text().count("notes.png") == 1
        assert names["store"].paths == sorted(names["store"].paths)
        assert names["store"].classes[names["found"]] in {folder.name for folder in (place / "mess").iterdir()}
        for file in ("map.html", "duplicates.html", "measured/report.html", "try/report.html", "drawn/grid.png"):
            assert (place / file).is_file(), file
        assert len((place / "answers.csv").read_text().splitlines()) == 1 + len(list((place / "mess").rglob("*.*g")))
    elif page == "pretrain":
        for file in (
            "my_model/model.safetensors",
            "run/model/model.safetensors",
            "run/report.html",
            "quality/table.md",
        ):
            assert (place / file).is_file()
    elif page == "fine-tune":
        assert names["model"].class_names == ["Bag", "Sneaker", "Trouser"]
        assert names["samples"].shape == (8, 1, 28, 28)
        assert 0 <= names["agreement"] <= 1
        assert (place / "tuned" / "report.html").is_file()
        assert (place / "samples" / "samples.npz").is_file()
    elif page == "tokenizers":
        assert len(names["cache"]) == 6
        assert names["errors"].psnr.shape == (1797,)
        assert (place / "measured" / "report.html").is_file()
    elif page == "values":
        assert names["sampled"].shape == (2, 32, 32, 4)
        assert names["sampled"].dtype == np.uint16
        assert tifffile.imread(place / "band_samples" / "images" / "000003.tiff").shape == (4, 32, 32)
        assert (place / "band_features" / "features.npy").is_file()
    elif page == "extend":
        assert names["features"].shape == (100, 128)
        assert type(names["again"].generator) is names["MeanOfSeen"]
    elif page == "models":
        assert (place / "my_arpg" / "tokenizer" / "model.safetensors").is_file()


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


def test_every_table_and_picture_is_on_a_page():
    text = "".join(page.read_text(encoding="utf-8") for page in OTHERS)
    for file in (*DOCS.rglob("*.csv"), *DOCS.rglob("*.png"), *DOCS.rglob("*.svg")):
        assert f"{file.name})" in text, f"{file.name} is on no page"


def test_diagrams_are_what_the_code_draws(monkeypatch):
    monkeypatch.syspath_prepend(DOCS / "diagrams")
    diagrams = importlib.import_module("draw")
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
