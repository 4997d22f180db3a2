"""Mistyped paths: the hub is not asked where their folder is here, and names that are alike are suggested, at once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from folders import fill

import randfeat
from randfeat import cli
from randfeat.data.sources import open_source
from randfeat.data.sources.folder import find_images
from randfeat.utils import network


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with pictures and a model in it, and no hub."""
    fill(tmp_path, "photos/cats/a.png", "photos/dogs/b.png", "my.photos/c.png")
    (tmp_path / "models/randar").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)

    def asked(*of, **the):
        pytest.fail("the hub was asked")

    monkeypatch.setattr(network, "reachable", asked)
    monkeypatch.setattr("datasets.get_dataset_split_names", asked)
    monkeypatch.setattr("huggingface_hub.snapshot_download", asked)
    return tmp_path


# what was typed -> the suggestion, "" for none
MISTYPED = {
    "photos/cat": "photos/cats",
    "photos/Cats": "photos/cats",
    "photos/zebras": "",
    "photo": "photos",
    "Photos": "photos",
    "phtoos": "photos",
    "my_photos": "my.photos",
    "phots/cats": "photos/cats",
}


@pytest.mark.parametrize("name", MISTYPED)
def test_a_mistyped_folder_of_images_is_not_asked_for(name, here):
    what = f"did you mean {MISTYPED[name]}" if MISTYPED[name] else "check the name"
    with pytest.raises(FileNotFoundError, match=rf"^there is no {re.escape(name)} here, .* not asked: {what}"):
        open_source(name)


@pytest.mark.parametrize("name", ["./photo", "photo/", "photos/cats/a.pgn", "photos/a/b", "list.csv"])
def test_other_paths_are_not_asked_for_either(name, here):
    with pytest.raises(FileNotFoundError, match=f"^there is no {re.escape(name)}"):
        open_source(name)


@pytest.mark.parametrize("name", ["photos/cats/b.png", "./photos/cat", "photos/cat/"])
def test_a_path_that_is_no_name_on_the_hub_has_a_suggestion(name, here):
    with pytest.raises(FileNotFoundError, match=r"did you mean photos/cats"):
        open_source(name)


@pytest.mark.parametrize(
    "words", [["extract", "models/randra", "photos"], ["tokenize", "photos/cat", "--tokenizer", "patch"]]
)
def test_a_command_says_it_in_one_sentence(words, here, capsys):
    assert cli.main([*words, "-o", "out"]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert re.search("did you mean (models/randar|photos/cats)", told)
    assert not (here / "out").exists()


@pytest.mark.parametrize("name", ["photos/cats/b.png", "photo"])
def test_a_mistyped_picture_has_a_suggestion(name, here):
    with pytest.raises(FileNotFoundError, match=f"^there is no {re.escape(name)}, did you mean photos"):
        find_images([Path(name)])


@pytest.mark.parametrize("name", ["models/randra", "models/randr"])
def test_a_mistyped_model_is_not_asked_for(name, here):
    with pytest.raises(FileNotFoundError, match=r"the hub is not asked: did you mean models/randar\?"):
        randfeat.load(name)
