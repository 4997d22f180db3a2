"""Whatever is dropped: a picture of any kind is taken, and anything else is a sentence and nothing more."""

from __future__ import annotations

import io
import json
import urllib.error
import urllib.request

import damaged
import numpy as np
import pytest
from PIL import Image

WRONG = {
    "half a PNG": "truncated",
    "half a JPEG": "truncated",
    "text": "text, no picture",
    "bomb": "178,956,970 pixels",
}


def saved(kind):
    """A file of a picture that is unusual in some way."""
    noise, file = Image.fromarray(damaged.noise(40, 60)), io.BytesIO()
    if kind == "one pixel.png":
        Image.new("L", (1, 1), 200).save(file, "PNG")
    elif kind == "moving.gif":
        noise.save(file, "GIF", save_all=True, append_images=[noise.rotate(90), noise.rotate(180)])
    elif kind == "print.jpg":
        noise.convert("CMYK").save(file, "JPEG")
    elif kind == "deep.png":
        Image.fromarray(damaged.noise(40, 60, 1, dtype=np.uint16)).save(file, "PNG")
    elif kind == "large.png":
        Image.new("RGB", (7000, 5000), "teal").save(file, "PNG")
    return file.getvalue()


def test_every_kind_of_picture_is_taken(visit, site, place):
    read = visit(site, "Read")
    for name in ("one pixel.png", "moving.gif", "print.jpg", "deep.png", "large.png"):
        (place / name).write_bytes(saved(name))
        read.drop(place / name)
        read.sees("what the model sees")
        assert read.panel.get_by_role("alert").count() == 0, name
        shown = read.panel.locator(".picture img")
        assert shown.evaluate("image => image.decode().then(() => image.naturalWidth)") >= 50, name
        read.panel.get_by_role("button", name="Remove Image").click()
        read.panel.get_by_text("what the model sees").wait_for(state="detached")


@pytest.mark.parametrize("tab", ["Search", "Paint", "Read", "Classify"])
def test_anything_else_is_a_sentence(visit, site, tmp_path, tab):
    page = visit(site, tab)
    for name, reason in WRONG.items():
        path = damaged.write_damaged(tmp_path / name.replace(" ", "-"), name)
        page.drop(path)
        page.sees(f"{path.name} cannot be read as a picture")
        said = page.told()
        assert reason in said
        assert said.endswith(".")
        assert len(said.splitlines()) == 1
        page.sees("Drop a picture here")  # there is room for the next one
        assert page.panel.locator(".picture img").count() == 0
    assert page.panel.locator("canvas").count() == 0
    assert page.panel.locator("figure").count() == 0


def test_a_name_is_shown_as_it_is(visit, site, place, tmp_path):
    search = visit(site, "Search")
    for number, name in enumerate(("${1+1} {{value}}.png", "<b onclick=alert(1)>&amp;.png")):
        Image.open(place / "plain" / f"{number:04}.png").save(tmp_path / name)
        search.drop(tmp_path / name)
        search.page.wait_for_function(
            "name => document.querySelector('.answer')?.innerText.startsWith('Like ' + name)", arg=name
        )


def test_a_file_that_is_too_large_is_refused_before_it_is_read(visit, site, tmp_path):
    page = visit(site, "Read")
    (tmp_path / "huge.png").write_bytes(bytes(2**26 + 2**20))
    page.forgive()  # gradio asks how far the upload has come, which it has refused
    page.drop(tmp_path / "huge.png")
    page.page.get_by_text("exceed the maximum allowed size of 64").first.wait_for()


def test_the_page_opens_no_file_that_was_not_uploaded(site, place):
    """Whoever talks to the page without a browser cannot have it read the files of this machine."""
    config = json.load(urllib.request.urlopen(f"{site}config"))
    boxes = {one["id"] for one in config["components"] if one["type"] == "image"}
    assert boxes
    for name in ("randar/config.json", "plain/0000.png"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{site}gradio_api/file={place / name}")
        assert refused.value.code == 403
        refused.value.close()
    listeners = [one for one in config["dependencies"] if one["inputs"] and one["inputs"][0] in boxes]
    assert listeners
    for listener in listeners:
        given = {"path": str(place / "plain" / "0000.png"), "meta": {"_type": "gradio.FileData"}}
        body = {
            "data": [given, *[None for _ in listener["inputs"][1:]]],
            "fn_index": listener["id"],
            "session_hash": f"outside{listener['id']}",
        }
        request = urllib.request.Request(
            f"{site}gradio_api/queue/join", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request):
            pass
        with urllib.request.urlopen(f"{site}gradio_api/queue/data?session_hash={body['session_hash']}") as events:
            for line in events:
                if b"process_completed" in line:
                    assert not json.loads(line.decode().removeprefix("data:"))["success"]
                    break
