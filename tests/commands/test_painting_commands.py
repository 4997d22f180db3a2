"""`randfeat inpaint`, `edit`, `outpaint` and `vary`: folders, sheets and sentences."""

from __future__ import annotations

import argparse
import dataclasses
import json

import numpy as np
import pytest
import torch
from damaged import noise_picture
from PIL import Image
from pipelines import make_pipeline

from randfeat import Sampling, cli, load
from randfeat.commands import edit_images, sample
from randfeat.data.decode import open_picture
from randfeat.inference.editing import Framing, as_mask

HIDDEN = as_mask((3, 2, 9, 7), (11, 13))
BOX = ["--box", "3", "2", "9", "7"]
COMMANDS = {"inpaint": BOX, "edit": [*BOX, "--class", "dog"], "outpaint": ["--sides", "3", "0", "2", "1"], "vary": []}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a model, a picture and masks."""
    place = tmp_path_factory.mktemp("painting")
    make_pipeline("randar", 3, {"steps": 3}).save(place / "model")
    noise_picture(11, 13, 3).save(place / "photo.png")
    Image.fromarray(HIDDEN).save(place / "mask.png")
    Image.fromarray(HIDDEN & False).save(place / "empty.png")
    Image.fromarray(HIDDEN | True).save(place / "full.png")
    (place / "text.png").write_text("no picture at all")
    return place


def run(place, command, *arguments, out, model="model", image="photo.png"):
    common = [command, str(place / model), str(place / image), "--out", str(out), "--device", "cpu"]
    return cli.main([*common, *(argument.format(place) for argument in arguments)])


def results(out):
    return [np.asarray(open_picture(path)) for path in sorted((out / "images").iterdir())]


def test_the_flags_are_the_fields():
    parser = argparse.ArgumentParser()
    edit_images.add_arguments(parser, "inpaint")
    args = parser.parse_args(["MODEL", "IMAGE", *BOX])
    assert set(edit_images.FRAMING.values()) == {field.name for field in dataclasses.fields(Framing)}
    assert edit_images.framing_of(args) == Framing()
    assert edit_images.sampling_of(args, Sampling(88)) == Sampling(88)
    own = {"model", "images", "out", "samples", "seed", "mask", "box", "cls", "guess", "gif", "bias"}
    how = {*sample.SAMPLING, *sample.guidance_flags("guidance"), *edit_images.FRAMING}
    control = {"control", "control_type", *sample.guidance_flags("control_scale")}
    assert set(vars(args)) == own | how | control | {"batch_size", "device", "dtype"}
    said = "--fit tile --margin 1 --cover 0.5 --grow 2 --overlap 0.25 --feather 3 --steps 4"
    said = parser.parse_args(["MODEL", "IMAGE", "--mask", "M", *said.split()])
    assert edit_images.framing_of(said) == Framing("tile", 1, 0.5, 2, 0.25, 3)
    assert edit_images.sampling_of(said, Sampling()) == Sampling(4)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_of_results_is_filled_and_gone_on_with(place, tmp_path, capsys, command):
    out = tmp_path / "out"
    assert run(place, command, *COMMANDS[command], "--samples", "2", out=out) == 0
    assert capsys.readouterr().out == f"wrote {out}: look at {out / 'sheet.png'} first\n"
    first = results(out)
    assert len(first) == 2
    assert (first[0] != first[1]).any()
    settings = json.loads((out / "settings.json").read_text())
    assert settings["job"] == command
    before = (out / "images" / "000000.png").stat().st_mtime_ns
    assert run(place, command, *COMMANDS[command], "--samples", "5", "--batch-size", "2", out=out) == 0
    assert "images (2 were there)" in capsys.readouterr().err
    assert (out / "images" / "000000.png").stat().st_mtime_ns == before
    assert run(place, command, *COMMANDS[command], "--samples", "5", out=tmp_path / "at once") == 0
    for made, expected in zip(results(out), results(tmp_path / "at once"), strict=True):
        assert (made == expected).all()
    with Image.open(out / "sheet.png") as one, Image.open(tmp_path / "at once" / "sheet.png") as other:
        assert one.tobytes() == other.tobytes()
    assert run(place, command, *COMMANDS[command], "--seed", "1", out=out) == 1
    assert "holds pictures with seed 0, not 1: choose another directory (--out)" in capsys.readouterr().err


def test_results_are_those_of_python(place, tmp_path):
    model, picture = load(place / "model"), open_picture(place / "photo.png")
    for command, expected in (
        ("inpaint", model.inpaint(picture, HIDDEN, samples=4)),
        ("edit", model.edit(picture, HIDDEN, "dog", samples=4)),
        ("outpaint", model.outpaint(picture, None, 3, 0, 2, 1, samples=4)),
        ("vary", model.variations(picture, samples=4)),
    ):
        assert run(place, command, *COMMANDS[command], out=tmp_path / command) == 0
        for made, one in zip(results(tmp_path / command), expected, strict=True):
            assert (made == np.asarray(one)).all()
    assert run(place, "outpaint", "--size", "18x12", "--guess", "2", out=tmp_path / "sized") == 0
    expected = model.outpaint(picture, (18, 12), guess=2)[0]
    assert (results(tmp_path / "sized")[0] == np.asarray(expected)).all()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_bias_is_that_of_python_and_part_of_the_settings(place, tmp_path, capsys, command):
    model, picture = load(place / "model"), open_picture(place / "photo.png")
    bias = np.zeros((2, 2, 7), np.float32)
    bias[0, :, :4], bias[1, 1, 6] = -np.inf, 2.5
    np.save(place / "bias.npy", bias)
    said, out = [*COMMANDS[command], "--samples", "2", "--bias", "{}/bias.npy"], tmp_path / "out"
    assert run(place, command, *said, out=out) == 0
    how = {"samples": 2, "bias": torch.from_numpy(bias)}
    expected = {
        "inpaint": lambda: model.inpaint(picture, HIDDEN, **how),
        "edit": lambda: model.edit(picture, HIDDEN, "dog", **how),
        "outpaint": lambda: model.outpaint(picture, None, 3, 0, 2, 1, **how),
        "vary": lambda: model.variations(picture, **how),
    }[command]()
    assert all((made == np.asarray(one)).all() for made, one in zip(results(out), expected, strict=True))
    assert run(place, command, *said[:-2], out=tmp_path / "without") == 0
    assert any((a != b).any() for a, b in zip(results(out), results(tmp_path / "without"), strict=True))
    capsys.readouterr()
    assert run(place, command, *said[:-2], out=out) == 1
    assert "holds pictures with bias " in capsys.readouterr().err


@pytest.mark.parametrize("command", ["inpaint", "edit", "outpaint"])
def test_the_first_result_can_be_watched(place, tmp_path, command):
    assert run(place, command, *COMMANDS[command], "--gif", "--fit", "tile", out=tmp_path / "out") == 0
    with Image.open(tmp_path / "out" / "watch.gif") as moving:
        moving.seek(moving.n_frames - 1)
        assert moving.n_frames > 3
        assert moving.size[0] % results(tmp_path / "out")[0].shape[1] == 0
    assert (tmp_path / "out" / "order.png").is_file()


def test_empty_and_full_masks(place, tmp_path, capsys):
    picture = np.asarray(open_picture(place / "photo.png"))
    assert run(place, "inpaint", "--mask", "{}/empty.png", "--gif", out=tmp_path / "empty") == 0
    assert "the mask is empty, nothing is white: the picture stays as it is" in capsys.readouterr().err
    assert all((one == picture).all() for one in results(tmp_path / "empty"))
    assert run(place, "inpaint", "--mask", "{}/full.png", "--guess", "1", out=tmp_path / "full") == 0
    assert all((one != picture).any() for one in results(tmp_path / "full"))


def test_a_large_picture_has_a_small_sheet(place, tmp_path):
    noise_picture(300, 800, 3).save(tmp_path / "large.png")
    command = ["inpaint", str(place / "model"), str(tmp_path / "large.png"), "--box", "10", "10", "600", "40"]
    assert cli.main([*command, "--samples", "2", "--out", str(tmp_path / "out")]) == 0
    assert results(tmp_path / "out")[0].shape == (300, 800, 3)
    with Image.open(tmp_path / "out" / "sheet.png") as sheet:
        assert max(sheet.size) < 1000


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("inpaint", "--mask {0}/model", "photo.png has no file of its name in"),
        ("inpaint", "--mask {0}/text.png", "cannot be read as a picture: text, no picture"),
        ("inpaint", "--box 0 0 14 3", "the box 0 0 14 3 does not lie in a picture 13 pixels wide and 11 high"),
        ("inpaint", "--box 0 0 3 3 --class fox", "unknown class 'fox', expected one of cat, dog, cow"),
        ("inpaint", "--box 0 0 3 3 --cover 1", "cover must be a share"),
        ("inpaint", "--box 0 0 3 3 --guess -1", "guess must be a whole number of orders"),
        ("inpaint", "--box 0 0 3 3 --samples 0", "samples must be a whole number from 1, got 0"),
        ("inpaint", "--box 0 0 3 3 --batch-size 0", "batch_size must be a whole number from 1, got 0"),
        ("inpaint", "--box 0 0 3 3 --temperature 0", "temperature must be above 0"),
        ("inpaint", "--box 0 0 3 3 --order spiral", "order 'spiral' is none of RandAR's"),
        ("edit", "--box 0 0 3 3 --class 3", "class 3 is outside 0..2"),
        ("outpaint", "--size 5x20", "the picture is 13 pixels wide and 11 high, more than the size 5 x 20"),
        ("outpaint", "--sides 1 1 -1 1", "sides are whole numbers of pixels from 0"),
        ("vary", "--keep 1.5", "keep must be a share of the tokens, from 0 to 1, got 1.5"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(place, tmp_path, capsys, command, arguments, message):
    assert run(place, command, *arguments.split(), out=tmp_path / "out") == 1
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_pictures_and_folders_that_do_not_fit_are_refused(place, tmp_path, capsys):
    noise_picture(4, 6, 3).save(tmp_path / "other.png")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "diary.txt").write_text("mine")
    for arguments, out, image, message in (
        (["--mask", str(tmp_path / "other.png")], "out", "photo.png", "the mask is 6 pixels wide and 4 high"),
        (BOX, "out", "text.png", "text.png cannot be read as a picture: text, no picture"),
        (BOX, "out", "missing.png", "missing.png: give image files, or folders of them"),
        (BOX, "taken", "photo.png", "taken exists and holds something else: choose another directory (--out)"),
    ):
        assert run(place, "inpaint", *arguments, out=tmp_path / out, image=image) == 1
        said = capsys.readouterr().err
        assert message in said
        assert len(said.splitlines()) == 1
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["diary.txt"]
    with pytest.raises(SystemExit):
        run(place, "outpaint", "--size", "18", out=tmp_path / "out")
    assert "'18' is no size: write WIDTHxHEIGHT" in capsys.readouterr().err


def test_every_model_paints(place, tmp_path, capsys):
    for name in ("arpg", "llamagen"):
        pipeline = make_pipeline(name, 3, {"steps": 3})
        pipeline.save(tmp_path / name)
        for command, arguments in COMMANDS.items():
            out = tmp_path / f"{name}-{command}"
            assert run(tmp_path, command, *arguments, out=out, model=name, image=place / "photo.png") == 0
    wrong = ["--steps", "2"]
    assert (
        run(tmp_path, "inpaint", *BOX, *wrong, out=tmp_path / "out", model="llamagen", image=place / "photo.png") == 1
    )
    assert "LlamaGen decodes one token a step" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_ctrl_c_and_a_full_machine_are_one_sentence(place, tmp_path, capsys, monkeypatch):
    for error, code, message in (
        (KeyboardInterrupt, 130, "stopped. Run the same command again: images that are there are kept."),
        (torch.OutOfMemoryError, 1, "no room for 64 images at a time on cpu: choose a smaller --batch-size"),
    ):

        def fail(*_, error=error, **__):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr("randfeat.inference.editing.canvas.paint", fail)
            assert run(place, "inpaint", *BOX, out=tmp_path / "out") == code
        assert message in capsys.readouterr().err
    assert run(place, "inpaint", *BOX, out=tmp_path / "out") == 0


# many pictures -------------------------------------------------------------------------------------------------------


@pytest.fixture
def photos(place, tmp_path):
    """Three pictures of one size and two files that are none, with masks of all but one in another folder."""
    for number, name in enumerate(("a.png", "b/c.png", "b/d.png")):
        for folder, picture in (("photos", noise_picture(11, 13, 3, number)), ("masks", Image.fromarray(HIDDEN))):
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
    (tmp_path / "masks" / "b" / "d.png").unlink()
    for name in ("photos/note.png", "photos/b/note.png"):
        (tmp_path / name).write_text("a note that somebody renamed")
    Image.fromarray(HIDDEN).save(tmp_path / "masks" / "note.png")
    return tmp_path / "photos"


def many(place, command, photos, *arguments, out):
    words = [command, str(place / "model"), *map(str, photos), *map(str, arguments)]
    return cli.main([*words, "--samples", "2", "--out", str(out), "--device", "cpu"])


@pytest.mark.parametrize("command", COMMANDS)
def test_each_picture_of_a_folder_gets_what_it_would_get_alone(place, photos, tmp_path, capsys, command):
    out = tmp_path / "out"
    assert many(place, command, [photos], *COMMANDS[command], out=out) == 3
    assert "2 skipped, since they cannot be read, listed in" in capsys.readouterr().err
    assert len((out / "skipped.csv").read_text().splitlines()) == 3
    assert {path.parent for path in out.rglob("settings.json")} == {out / name for name in ("a", "b/c", "b/d")}
    with Image.open(out / "sheet.png") as sheet:
        assert sheet.width > sheet.height
    assert many(place, command, [photos / "b" / "c.png"], *COMMANDS[command], out=tmp_path / "alone") == 0
    for made, expected in zip(results(out / "b" / "c"), results(tmp_path / "alone"), strict=True):
        assert (made == expected).all()
    before = {path: path.stat().st_mtime_ns for path in out.rglob("0*.png")}
    assert many(place, command, [photos], *COMMANDS[command], out=out) == 3  # nothing is made again
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("0*.png")}


def test_a_folder_of_masks(place, photos, tmp_path, capsys):
    out, masks = tmp_path / "out", tmp_path / "masks"
    assert many(place, "inpaint", [photos], "--mask", masks, out=out) == 3
    said = capsys.readouterr().err
    assert said.count("no file of its name in") == 2
    assert "3 skipped, since they cannot be read, or have no mask, listed in" in said
    listed = dict(line.split(",", 1) for line in (out / "skipped.csv").read_text().splitlines())
    assert listed[str(photos / "b" / "d.png")] == f"no file of its name in {masks}"
    assert listed[str(photos / "note.png")] == '"text, no picture"'
    kept = np.asarray(open_picture(photos / "b" / "c.png"))
    for made in results(out / "b" / "c"):
        assert (made[~HIDDEN] == kept[~HIDDEN]).all()
    (masks / "a.png").write_text("a note")
    assert many(place, "inpaint", [photos], "--mask", masks, out=tmp_path / "two") == 3
    assert "a.png: its mask or control: text, no picture" in capsys.readouterr().err


def test_what_a_picture_lacks_is_said(place, photos, tmp_path, capsys):
    masks, pictures = tmp_path / "masks", [photos / "a.png", photos / "b" / "d.png"]
    assert many(place, "inpaint", pictures, "--mask", masks, out=tmp_path / "out") == 3
    assert "1 skipped, since they have no mask, listed in" in capsys.readouterr().err
    Image.fromarray(HIDDEN).save(masks / "a.bmp")
    assert many(place, "inpaint", pictures, "--mask", masks, out=tmp_path / "two") == 1
    assert f"{masks} has a.bmp and a.png for the picture a: keep one of them there" in capsys.readouterr().err
    nowhere = tmp_path / "nowhere.png"
    (tmp_path / "empty").mkdir()
    for given in (pictures, pictures[:1], [photos], [tmp_path / "empty"]):  # before any of them is opened
        assert many(place, "inpaint", given, "--mask", nowhere, out=tmp_path / "three") == 1
        assert capsys.readouterr().err == (
            f"randfeat inpaint: --mask {nowhere}: there is no such file or folder, check the path\n"
        )
    assert not (tmp_path / "three").exists()


@pytest.mark.parametrize("how", [["--box", 2, 3, 9, 8], ["--mask", "masks/a.png"]])
def test_pictures_too_small_for_a_box_are_skipped(place, photos, tmp_path, capsys, monkeypatch, how):
    monkeypatch.chdir(tmp_path)
    noise_picture(4, 6, 3).save(photos / "small.png")
    assert many(place, "inpaint", [photos], *how, out=tmp_path / "out") == 3
    said = capsys.readouterr().err
    assert "3 skipped, since they cannot be read, or have not the size for it, listed in" in said
    assert f"{photos / 'small.png'}: the {how[0][2:]}" in said
    assert {path.parent.name for path in (tmp_path / "out").rglob("settings.json")} == {"a", "c", "d"}
    assert many(place, "inpaint", [photos / "a.png", photos / "small.png"], *how, out=tmp_path / "two") == 3
    assert "1 skipped, since they have not the size for it, listed in" in capsys.readouterr().err


def test_a_dot_in_a_name_is_no_suffix_of_a_mask(place, photos, tmp_path, capsys):
    masks = tmp_path / "masks"
    (photos / "a.png").rename(photos / "a.1.png")  # and masks hold a.png
    assert many(place, "inpaint", [photos], "--mask", masks, out=tmp_path / "out") == 3
    assert f"a.1.png: no file of its name in {masks}" in capsys.readouterr().err
    assert not (tmp_path / "out" / "a.1").exists()


def test_many_pictures_that_cannot_be_edited_together(place, photos, tmp_path, capsys):
    noise_picture(4, 6, 3).save(photos / "small.png")
    small = [photos / "small.png", photos / "note.png"]
    assert many(place, "inpaint", small, "--mask", tmp_path / "masks" / "a.png", out=tmp_path / "out") == 1
    assert f"{photos / 'small.png'}: the mask is 13 pixels wide" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert many(place, "vary", [photos / "note.png", photos / "b" / "note.png"], out=tmp_path / "out") == 1
    assert "two pictures are called note.png" in capsys.readouterr().err
    (photos / "b" / "e.png").write_text("a note")
    assert many(place, "vary", [photos / "note.png", photos / "b" / "e.png"], out=tmp_path / "out") == 1
    assert "none of the 2 images could be read" in capsys.readouterr().err
    assert many(place, "vary", [photos / "a.png"], out=tmp_path / "out") == 0
    assert many(place, "vary", [photos], out=tmp_path / "out") == 1
    assert "holds edits of one picture: choose another directory" in capsys.readouterr().err
