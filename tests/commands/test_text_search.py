"""`randfeat search --text`: an index of a text-image model, from the folder to the page."""

from __future__ import annotations

import json
import re

import damaged
import numpy as np
import pytest
import text_image
from PIL import Image
from pipelines import make_sampler

from randfeat import Index, cli

READING = ["--device", "cpu", "--workers", "0"]


@pytest.fixture
def photos(tmp_path, monkeypatch):
    for number in range(12):
        path = tmp_path / "photos" / ("cat", "dog")[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(damaged.noise(40, 30, seed=number)).save(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"


@pytest.fixture
def model(photos, monkeypatch):
    return text_image.save(photos.parent, monkeypatch)[1]


def run(capsys, *arguments, code=0):
    capsys.readouterr()
    assert cli.main([str(argument) for argument in arguments]) == code, capsys.readouterr().err
    said = capsys.readouterr()
    return said.out if code in (0, 3) else said.err


def search(capsys, *arguments):
    return json.loads(run(capsys, "search", *arguments, "--format", "json", "--device", "cpu"))


def test_from_a_folder_to_what_a_text_says(capsys, photos, model):
    run(capsys, "index", "build", "i", "photos", "--model", model, *READING)
    index = Index.open("i")
    encoder = index.encoder()
    texts = ["a red shoe", "two dogs"]
    queries = index.read_texts(texts, encoder)
    np.testing.assert_array_equal(queries, encoder.encode_texts(texts))
    expected = index.search(queries, 12)
    found = search(capsys, "i", "--text", *texts, "-k", 12)
    assert [[match["path"] for match in one] for one in found] == [[match.path for match in one] for one in expected]
    pictures = encoder.features([match.path for match in expected[0]])[0]
    scores = [match["score"] for match in found[0]]
    np.testing.assert_allclose(scores, pictures @ queries[0], atol=1e-5)
    assert scores == sorted(scores, reverse=True)
    dogs = search(capsys, "i", "--text", "two dogs", "--label", "dog")
    assert {match["label"] for match in dogs[0]} == {"dog"}
    table = run(capsys, "search", "i", photos / "cat/00.png", "--text", "two\ndogs", "-k", 1, "--device", "cpu")
    blocks = table.split("\n\n")
    assert [block.splitlines()[0] for block in blocks] == [str(photos / "cat/00.png"), "two\\ndogs"]
    assert blocks[0].splitlines()[1].split()[0] == "1.0000"


def test_pictures_and_texts_together_are_their_mean(capsys, photos, model):
    run(capsys, "index", "build", "i", "photos", "--model", model, *READING)
    index = Index.open("i")
    encoder, paths = index.encoder(), [photos / "cat/00.png", photos / "dog/01.png"]
    rows = np.concatenate([index.read(paths, encoder), index.read_texts(["at night"], encoder)])
    (expected,) = index.search(rows.mean(0, keepdims=True), 5)
    (found,) = search(capsys, "i", *paths, "--text", "at night", "--mean", "-k", 5)
    assert [(match["id"], pytest.approx(match["score"], abs=1e-6)) for match in found] == [
        (match.id, match.score) for match in expected
    ]
    said = run(capsys, "search", "i", "photos", "--text", "at night", "--mean", "-k", 1, "--device", "cpu")
    assert re.fullmatch(r"photos/cat/00.png \+ .* \+ 9 more", said.splitlines()[0])


def test_the_page_shows_texts_and_what_was_found(capsys, photos, model):
    run(capsys, "index", "build", "i", "photos", "--model", model, *READING)
    run(
        capsys,
        "search",
        "i",
        "--text",
        "a <red> shoe",
        "-k",
        3,
        "--format",
        "html",
        "-o",
        "page.html",
        "--device",
        "cpu",
    )
    page = (photos.parent / "page.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert "<h2>a &lt;red&gt; shoe</h2>" in page
    both = ["search", "i", photos / "cat/00.png", "--text", "at night", "--mean", "-k", 3, "--format", "html"]
    page = run(capsys, *both, "--device", "cpu")
    assert page.count("data:image/png;base64,") == 4  # with that of the query
    assert page.count("<section>") == 1


def test_what_is_wrong_is_one_sentence(capsys, photos, model):
    make_sampler().save("tiny")
    run(capsys, "index", "build", "own", "photos", "--model", "tiny", *READING)
    run(capsys, "index", "build", "i", "photos", "--model", model, *READING)
    run(capsys, "index", "build", "white", "photos", "--model", model, "--whiten", 4, *READING)
    for arguments, message in (
        (
            ["own", "--text", "a shoe"],
            "reads pictures and no texts: to search by text build the index with a text-image",
        ),
        (["i"], "there is nothing to search for: give a picture, a folder of pictures or --text"),
        (["i", "--text", "a shoe", "photos/cat/00.png"], "pictures to search for stand before --text"),
        (["i", "--text", " "], "a text is empty: say what the pictures show"),
        (["i", "--text", "a shoe " * 9], "reads 12 tokens of a text"),
        (["white", "--text", "a shoe"], "is whitened for pictures, not for texts: build it without whitening"),
    ):
        said = run(capsys, "search", *arguments, "--device", "cpu", code=1)
        assert message in said
        assert len(said.splitlines()) == 1


def test_unread_pictures_are_skipped_and_texts_are_not(capsys, photos, model):
    run(capsys, "index", "build", "i", "photos", "--model", model, *READING)
    (photos.parent / "bad.png").write_bytes(b"")
    asked = ["i", "bad.png", photos / "cat/00.png", "--text", "a shoe", "-k", 1, "--device", "cpu"]
    said = run(capsys, "search", *asked, code=3)
    assert [block.splitlines()[0] for block in said.split("\n\n")] == [str(photos / "cat/00.png"), "a shoe"]
    said = run(capsys, "search", *asked, "--mean", code=3)
    assert said.splitlines()[0] == f"{photos / 'cat/00.png'} + a shoe"


def test_the_index_finds_its_model_from_elsewhere(capsys, photos, model, monkeypatch):
    relative = model.replace(f"{photos.parent}/", "")
    run(capsys, "index", "build", "i", "photos", "--model", relative, *READING)
    (photos.parent / "elsewhere").mkdir()
    monkeypatch.chdir(photos.parent / "elsewhere")
    assert len(search(capsys, "../i", "--text", "a shoe", "-k", 2)[0]) == 2


def test_stores_of_embeddings_are_searched_by_text(capsys, photos, model):
    run(capsys, "extract", model, "photos", "-o", "store", *READING)
    run(capsys, "index", "build", "i", "store")
    assert len(search(capsys, "i", "--text", "a shoe", "-k", 2)[0]) == 2
