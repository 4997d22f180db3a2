"""The README: a front page of one screen, whose blocks run beside the models that the demo leaves."""

from __future__ import annotations

from pathlib import Path

import blocks
import pytest

README = Path(__file__).parents[1] / "README.md"
LINES = README.read_text(encoding="utf-8").splitlines()
FRONT = "\n".join(LINES[:40])


def test_it_opens_with_two_commands():
    """.ci/run runs them as they stand."""
    first = blocks.blocks(README)[0]
    assert first.language == "bash"
    assert next(blocks.commands(first.code))[:4] == ["pip", "install", "-e", "."]
    assert len(first.code.strip().splitlines()) == 2


def test_it_is_short():
    assert 110 <= len(LINES) <= 150
    assert max(len(line) for line in LINES if not line.startswith(("|", "!["))) <= 120


def test_the_first_screen_holds_what_one_looks_for():
    for part in (
        "![",
        "docs/images/demo.png",
        "```bash",
        "minute",
        "randfeat.load",
        ".features(",
        "Probe(",
        ".sample(",
    ):
        assert part in FRONT
    for link in ("docs/index.md", "docs/results/index.md", "docs/models.md"):
        assert f"]({link})" in FRONT


@pytest.mark.slow
def test_the_blocks_run(demo, monkeypatch):
    monkeypatch.chdir(demo.parent)  # where the README's `demo` lies
    names: dict[str, object] = {}
    for block in blocks.blocks(README)[1:]:
        if block.language in blocks.RUN:
            blocks.run(block, README, names)
    assert names["features"].shape == (5000, 384)
    assert 0.5 < names["accuracy"] <= 1
    assert names["boots"].shape == (16, 1, 28, 28)
