import json
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from randfeat import cli
from randfeat.data.builtin import (
    DATASETS,
    fashion,
    letters,
    make_fashion,
    make_letters,
    make_photographs,
    photographs,
    write_folder,
)
from randfeat.data.sources import idx, open_source

FONTS = sorted((Path(matplotlib.get_data_path()) / "fonts" / "ttf").glob("*.ttf"))


DRAWN = [name for name in DATASETS if name != "fashion"]  # by seeds


def made_here(name, **how):
    """A set of what every machine has: the fonts and pictures that matplotlib and scikit-learn bring along."""
    material = {"letters": {"fonts": FONTS}, "photographs": {"folders": ()}}.get(name, {})
    return DATASETS[name](**material, **how)


@pytest.fixture(scope="module", params=DRAWN)
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
            patch.setattr(photographs, "read_pictures", lambda folders, shorter: [("plane", picture)])
            made = make_photographs(split_seed=split_seed)
        sides = [made.images[made.test == side].reshape(-1, 3) for side in (True, False)]
        apart = [set(map(int, part[:, axis])) for axis in (0, 1) for part in sides]
        folder_of[split_seed] = not apart[0] & apart[1] or not apart[2] & apart[3]
    assert all(folder_of.values())


def test_photographs_of_another_size(tmp_path):
    rng = np.random.default_rng(0)
    for name, shape in (("large", (900, 1300)), ("small", (300, 500))):
        blocks = rng.integers(0, 255, (shape[0] // 20, shape[1] // 20, 3), dtype=np.uint8)
        Image.fromarray(blocks).resize(shape[::-1], Image.Resampling.BICUBIC).save(tmp_path / f"{name}.jpg")
    found = dict(photographs.read_pictures([tmp_path], photographs.shorter_side(64)))
    assert "small" not in found
    assert found["large"].shape == (384, 555, 3)
    assert {min(picture.shape[:2]) for picture in found.values()} == {384}
    assert {"china", "grace_hopper"} <= set(found)  # so two photographs at least are everywhere
    made = make_photographs(folders=[tmp_path], size=64)
    assert made.images.shape == (140 * len(found), 64, 64, 3)
    assert made.test.sum() == 40 * len(found)
    with pytest.raises(ValueError, match="size must be a whole number from 8, got 7"):
        make_photographs(size=7)
    with pytest.raises(ValueError, match=r"\d photographs of 16512 pixels or more on each side found"):
        make_photographs(folders=(), size=4096)


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


# Fashion-MNIST -------------------------------------------------------------------------------------------------------


@pytest.fixture
def garments(tmp_path, monkeypatch):
    """A folder of IDX files of 30 + 10 images, for this test the content of Fashion-MNIST."""
    folder = tmp_path / "garments"
    folder.mkdir()
    for split, begin, count in (("train", "train", 30), ("test", "t10k", 10)):
        images = np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        idx.write_idx(folder / f"{begin}-images-idx3-ubyte.gz", images)
        idx.write_idx(folder / f"{begin}-labels-idx1-ubyte.gz", labels)
        monkeypatch.setitem(fashion.IMAGES, split, idx.digest(images))
        monkeypatch.setitem(idx.FASHION_LABELS, split, idx.digest(labels))
    return folder


def test_fashion_is_read_from_a_folder(garments):
    made = make_fashion(garments)
    train, test = (open_source(garments, split) for split in ("train", "test"))
    assert np.array_equal(made.images[:30], train.images)
    assert np.array_equal(made.images[30:], test.images)
    assert made.labels.tolist() == train.labels + test.labels
    assert made.test.tolist() == [False] * 30 + [True] * 10
    assert made.group_names == (*train.paths, *test.paths)
    assert made.classes == tuple(train.classes) == idx.FASHION
    assert len(set(made.groups)) == len(made)
    with pytest.raises(ValueError, match="has test images of its own, so it is not split again"):
        make_fashion(garments, split_seed=1)


def test_what_is_no_fashion_is_refused(garments, tmp_path):
    images = np.zeros((30, 28, 28), np.uint8)
    idx.write_idx(garments / "train-images-idx3-ubyte", images)
    with pytest.raises(ValueError, match=r"the train images of .*garments are not Fashion-MNIST's: expected what Zala"):
        make_fashion(garments)
    (tmp_path / "empty").mkdir()
    for missing in ("empty", "nowhere"):
        with pytest.raises(
            FileNotFoundError, match=rf"no Fashion-MNIST in .*{missing}: install .*apt-get install data"
        ):
            make_fashion(tmp_path / missing)


def test_fashion_comes_from_the_hub_as_it_does_from_files(garments, monkeypatch):
    import datasets

    asked = []

    def load(name, split):
        asked.append((name, split))
        source = open_source(garments, split)
        features = {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["T - shirt / top", *idx.FASHION[1:]]),
        }
        rows = {"image": [source.read(row) for row in range(len(source))], "label": source.labels}
        return datasets.Dataset.from_dict(rows, datasets.Features(features))

    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda name: ["test", "train"])
    monkeypatch.setattr(datasets, "load_dataset", load)
    ours, theirs = make_fashion(garments), make_fashion("hub")
    assert asked == [("zalando-datasets/fashion_mnist", "train"), ("zalando-datasets/fashion_mnist", "test")]
    for field in ("images", "labels", "groups", "test", "classes", "group_names"):
        assert np.array_equal(getattr(ours, field), getattr(theirs, field))


def test_the_command_makes_fashion(garments, tmp_path, capsys):
    out = tmp_path / "fashion"
    assert cli.main(["make", "fashion", "--from", str(garments), "-o", str(out)]) == 0
    assert "40 images, 10 of them for test, 10 classes\n" in capsys.readouterr().out
    for split in ("train", "test"):
        source, given = open_source(out, split), open_source(garments, split)
        assert isinstance(source.images, np.memmap)
        assert (source.fingerprint(), source.classes) == (given.fingerprint(), given.classes)
    assert "Copyright (c) 2017 Zalando SE" in (out / "README.md").read_text()
    assert cli.main(["make", "fashion", "-o", str(out)]) == 0
    assert "already" in capsys.readouterr().out
    assert cli.main(["make", "fashion", "--from", str(tmp_path / "nowhere"), "-o", str(tmp_path / "more")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "more").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["letters", "--size", "64"], "--size is of photographs: leave it out for letters"),
        (["digits", "--from", "there"], "--from is of fashion: leave it out for digits"),
        (["fashion", "--seed", "1"], "--seed is of digits, cluttered, letters, photographs: leave it out for fashion"),
        (["fashion", "--split-seed", "0"], "--split-seed is of digits, cluttered, letters, photographs: leave it out"),
        (["photographs", "--size", "4"], "size must be a whole number from 8, got 4"),
    ],
)
def test_a_flag_of_another_set_is_refused(flags, message, tmp_path, capsys):
    assert cli.main(["make", *flags, "-o", str(tmp_path / "out")]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_of_photographs_says_its_size(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(photographs, "FOLDERS", ())
    monkeypatch.setattr(photographs, "TRAIN", 3)
    monkeypatch.setattr(photographs, "TEST", 2)
    for more, written in ([], None), (["--size", "40"], 40):
        out = tmp_path / str(written)
        assert cli.main(["make", "photographs", *more, "-o", str(out)]) == 0
        assert json.loads((out / "made.json").read_text()).get("size") == written
        assert open_source(out, "test").read(0).size == (written or 32, written or 32)
    assert cli.main(["make", "photographs", "--size", "32", "-o", str(tmp_path / "None")]) == 0
    assert "already" in capsys.readouterr().out
    assert cli.main(["make", "photographs", "--size", "40", "-o", str(tmp_path / "None")]) == 1
    assert "holds a set with size None, not 40" in capsys.readouterr().err
