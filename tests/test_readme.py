"""Every block of the README runs, in its order, beside the models that the demo leaves and with a folder for the hub.

The two shell commands that open it are run as they stand by .ci/run.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import urllib.request
from pathlib import Path

import damaged
import numpy as np
import official
import pytest
from PIL import Image

from randfeat import cli, pretrain
from randfeat.commands.demo import study
from randfeat.utils import arrays

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def test_it_opens_with_two_commands():
    language, first = BLOCKS[0]
    assert language == "bash"
    assert len(first.strip().splitlines()) == 2
    assert {language for language, _ in BLOCKS[1:]} == {"python", "bash"}


def visit(arguments):
    """Starts a page, waits until it is there, and ends it."""
    command = [sys.executable, "-m", "randfeat", *arguments, "--port", "0", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as page:
        assert page.stdout is not None
        address = page.stdout.readline().split()[0]
        assert b"randfeat" in urllib.request.urlopen(address).read()
        page.terminate()
    assert page.returncode == 0


@pytest.mark.slow
def test_the_blocks_run(demo, monkeypatch, hub):
    official.shrink(monkeypatch, "arpg_l")
    official.publish(hub, "arpg-l")
    monkeypatch.chdir(demo.parent)  # where the README's `demo` lies
    (demo.parent / "photos").mkdir()
    for number in range(6):
        Image.fromarray(damaged.noise(50, 40, seed=number)).save(demo.parent / "photos" / f"{number}.jpg")
    whole = pretrain.read_recipe
    monkeypatch.setattr(pretrain, "read_recipe", lambda name, changes=(): study.shortened(whole(name, changes), 0.01))
    seen: dict[str, object] = {}
    for number, (language, code) in enumerate(BLOCKS[1:], 1):
        if language == "python":
            exec(compile(code, f"README block {number}", "exec"), seen)
        else:
            for line in code.splitlines():
                program, *arguments = shlex.split(line)
                assert program == "randfeat"
                if arguments[0] == "app":
                    visit(arguments)
                else:
                    assert cli.main(arguments) == 0, line
    assert seen["features"].shape == (1797, 256)
    assert seen["eights"].shape == (16, 1, 8, 8)
    for picture, image in zip(seen["completed"], seen["images"], strict=False):
        assert (np.asarray(picture)[:4] == (image[:4] * 255).round()).all()
    assert [one.size for one in seen["wider"]] == [(16, 12)] * 4
    for command in ("inpaint", "edit", "outpaint", "vary"):
        assert len(list((demo.parent / command / "images").iterdir())) == 4
    assert seen["relatives"].shape == (10, 1, 8, 8)
    assert (demo.parent / "steered" / "control.png").is_file()
    assert len(list((demo.parent / "repainted" / "images").iterdir())) == 4
    assert seen["store"].as_numpy().shape == (6, 256)
    with Image.open(demo.parent / "map.png") as map_of_photos:
        assert map_of_photos.size == (1600, 1600)
    assert seen["backbone"].num_classes == 10
    assert seen["rows"].column_names == ["image", "features"]
    assert arrays.count_images(demo.parent / "samples" / "samples.npz") == 100
    assert arrays.count_images(demo.parent / "quick" / "samples.npz") == 2
    assert seen["dogs"].shape == (2, 3, 256, 256)
    assert (demo.parent / "my_arpg" / "tokenizer" / "model.safetensors").is_file()
    assert len(seen["index"]) == len(seen["in_memory"]) == 1157
    assert (demo.parent / "similar.html").read_text().count("<img") == 51
    assert (demo.parent / "my_model" / "model.safetensors").is_file()
    assert (demo.parent / "run" / "model" / "model.safetensors").is_file()
    assert (demo.parent / "run" / "report.html").is_file()
    assert (demo.parent / "cache" / "tokens.npy").is_file()


def test_the_pictures_are_in_the_repository():
    for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README):
        assert (Path(__file__).parents[1] / picture).is_file(), picture
