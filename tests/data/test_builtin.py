from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from randfeat import cli
from randfeat.data.builtin import DATASETS, letters, make_letters, make_photographs, photographs, write_folder
from randfeat.data.sources import open_source

FONTS = sorted((Path(matplotlib.get_data_path()) / "fonts" / "ttf").glob("*.ttf"))


def made_here(name, **how):
    """A set of what every machine has: the fonts and pictures that matplotlib and scikit-learn bring along."""
    material = {"letters": {"fonts": FONTS}, "photographs": {"folders": ()}}.get(name, {})
    return DATASETS[name](**material, **how)


@pytest.fixture(scope="module", params=DATASETS)
def made(request):
    return request.param, made_here(request.param)


def test_a_set_is_whole(made):
    name, one = made
    assert one.images.dtype == np.uint8
    assert one.images.ndim == (4 if name == "photographs" else 3)
    assert set(one.labels) == set(range(len(one.classes))) == set(one.labels[one.test])
    assert set(one.groups) == set(range(len(one.group_names)))
    assert one.images.reshape(len(one), -1).std(1).min() > 0  # nothing is empty


def test_no_group_lies_on_both_sides(made):
    one = made[1]
    assert not set(one.groups[one.test]) & set(one.groups[~one.test])


def test_it_is_a_function_of_its_seeds(made):
    name, one = made
    again, other, moved = made_here(name), made_here(name, split_seed=3), made_here(name, seed=1)
    assert np.array_equal(one.images, again.images)
    assert np.array_equal(one.test, again.test)
    if name == "photographs":  # the split is which half is cut
        assert not np.array_equal(one.images, other.images)
    else:
        assert not np.array_equal(one.test, other.test)
    assert np.array_equal(one.images, moved.images) == (name == "digits")


def test_clutter_comes_from_the_same_side_of_the_split(monkeypatch):
    from randfeat.data.builtin import cluttered

    seen = []
    digits = cluttered.make_digits()
    whose = {
        image.tobytes(): (test, group)
        for image, test, group in zip(digits.images, digits.test, digits.groups, strict=True)
    }
    cut = cluttered._piece
    monkeypatch.setattr(
        cluttered, "_piece", lambda image, rng: (seen.append(whose[image.tobytes()]), cut(image, rng))[1]
    )
    made = cluttered.make_cluttered()
    for number in range(0, len(made), 97):
        for test, group in seen[number * cluttered.PIECES :][: cluttered.PIECES]:
            assert test == made.test[number]
            assert group != made.groups[number]


def test_faces_of_one_design_are_one_group(tmp_path):
    copy = tmp_path / "Copy.ttf"
    copy.write_bytes((Path(FONTS[0].parent) / "DejaVuSans.ttf").read_bytes())
    faces = letters.read_faces([*FONTS, copy])
    renamed = [letters.Face(face.path, f"{number}", face.glyphs) for number, face in enumerate(faces)]
    alike = letters.same_design([*renamed, letters.Face(copy, "copy", faces[0].glyphs)])
    assert alike[-1] == alike[0]
    assert len(set(alike)) > 1


def test_what_is_no_latin_typeface_is_left_out(tmp_path):
    (tmp_path / "damaged.ttf").write_bytes(FONTS[0].read_bytes()[:500])
    (tmp_path / "text.ttf").write_text("no font")
    symbols = next(font for font in FONTS if font.name == "STIXSizOneSymReg.ttf")
    for path in (tmp_path / "damaged.ttf", tmp_path / "text.ttf", symbols):
        assert letters.read_face(path) is None
    with pytest.raises(ValueError, match="install more fonts"):
        make_letters(fonts=[symbols])


def test_a_picture_twice_counts_once_and_flat_ones_do_not(tmp_path):
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (300, 400, 3), dtype=np.uint8))
    noise.save(tmp_path / "a.png")
    noise.resize((800, 600)).save(tmp_path / "b.png")
    Image.new("RGB", (300, 300), "red").save(tmp_path / "flat.png")
    noise.crop((0, 0, 100, 100)).save(tmp_path / "small.png")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    alone = {name for name, _ in photographs.read_pictures(())}
    assert {name for name, _ in photographs.read_pictures([tmp_path])} - alone == {"a"}


def test_the_halves_of_a_photograph_do_not_touch():
    y, x = np.mgrid[:256, :300]
    picture = np.stack([y, x // 2, (x % 2) * 255], -1).astype(np.uint8)
    folder_of = {}
    for split_seed in range(4):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(photographs, "read_pictures", lambda folders: [("plane", picture)])
            made = make_photographs(split_seed=split_seed)
        sides = [made.images[made.test == side].reshape(-1, 3) for side in (True, False)]
        apart = [set(map(int, part[:, axis])) for axis in (0, 1) for part in sides]
        folder_of[split_seed] = not apart[0] & apart[1] or not apart[2] & apart[3]
    assert all(folder_of.values())


def test_the_folder_is_a_source_like_any_other(made, tmp_path):
    name, one = made
    rows = np.r_[np.flatnonzero(~one.test)[:30], np.flatnonzero(one.test)[:10]]
    few = {key: getattr(one, key)[rows] for key in ("images", "labels", "groups", "test")}
    part = replace(one, **few)
    write_folder(part, tmp_path / name, {"set": name})
    train, test = (open_source(str(tmp_path / name), split) for split in ("train", "test"))
    assert (len(train), len(test)) == (30, 10)


def test_the_command_makes_it_once(tmp_path, capsys):
    assert cli.main(["make", "digits", "-o", str(tmp_path / "digits")]) == 0
    assert "1797 images, 640 of them for test, 10 classes, 14 groups (writer)" in capsys.readouterr().out
    assert cli.main(["make", "digits", "-o", str(tmp_path / "digits")]) == 0
    assert "already" in capsys.readouterr().out
    (tmp_path / "file").write_text("")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "metadata.csv").write_text("mine")
    for folder, more, message in (
        ("file", [], "is a file"),
        ("file/below", [], "is a file"),
        ("mine", [], "holds something else"),
        ("digits", ["--split-seed", "3"], "holds a set with split_seed None, not 3"),
        ("other", ["--seed", "-1"], "seed must be a whole number from 0, got -1"),
    ):
        assert cli.main(["make", "digits", "-o", str(tmp_path / folder), *more]) == 1
        assert message in capsys.readouterr().err
    assert (tmp_path / "mine" / "metadata.csv").read_text() == "mine"
    assert not (tmp_path / "other").exists()
