"""Pipelines of images with any number of channels and a range of values: read, encoded, sampled and written."""

from __future__ import annotations

import csv
import importlib.util

import bands
import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from pipelines import HOW, NAMES, SIZE
from randfeat.pretrain import fit_patches

from randfeat import FeatureExtractor, Pipeline, cli, load
from randfeat.data import loader
from randfeat.data.decode import open_values
from randfeat.data.errors import UnfitImage
from randfeat.data.images import preview, to_pil
from randfeat.data.sources import open_source
from randfeat.data.values import as_tensor
from randfeat.features.extract import extract
from randfeat.features.generator_encoder import GeneratorEncoder
from randfeat.pipeline.sample_folder import write_samples
from randfeat.tokenizers import PatchTokenizer

DEEP = (0.0, 65535.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return bands.write_bands(tmp_path_factory.mktemp("bands"), 8, 12)


@pytest.fixture(scope="module")
def model(folder):
    """A tokenizer fitted to four channels of 16 bits, and an untrained generator."""
    return Pipeline(
        fit_patches(open_source(folder), SIZE, 2, 7, channels=4), tiny.model("randar", (2, 3)), NAMES, None, HOW
    )


def of_range(value_range, channels=2):
    fitted_to = torch.rand(6, channels, *SIZE, generator=torch.Generator().manual_seed(1))
    tokenizer = PatchTokenizer.fit(fitted_to, 7, 2, value_range=value_range)
    return Pipeline(tokenizer, tiny.model("randar", (2, 3)), NAMES, None, HOW)


def test_files_arrays_and_pictures_of_values_are_read_alike(model, folder, tmp_path):
    paths = sorted(folder.rglob("*.tiff"))
    small = np.stack([bands.bands(12, seed=number) for number in (0, 2, 4, 6, 1, 3, 5, 7)])
    expected = model.as_images(paths)
    assert expected.shape == (8, 4, *SIZE)
    assert torch.equal(model.as_images(small), expected)
    assert torch.equal(model.as_images([*small]), expected)
    assert torch.equal(model.as_images(np.moveaxis(small, -1, 1)), expected)
    assert torch.equal(model.as_images(torch.from_numpy(small).movedim(-1, 1)), expected)
    torch.testing.assert_close(model.as_images(small.astype(np.float64)), expected)
    tokens = model.tokens(paths, batch_size=3)
    np.testing.assert_array_equal(model.tokens(small), tokens)
    np.testing.assert_array_equal(model.features(small, batch_size=5), model.features(paths, batch_size=5))
    assert len(np.unique(tokens)) > 2
    grey = of_range(DEEP, 1)
    Image.fromarray(small[0, ..., 0]).save(tmp_path / "grey.png")
    with Image.open(tmp_path / "grey.png") as picture:
        assert torch.equal(grey.as_images(picture), grey.as_images(small[:1, ..., 0]))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((12, 12, 4), np.uint16), r"looks like one image, .* give one image in a list"),
        (np.zeros((2, 12, 12, 3), np.uint16), "image 0 has 3 channels, expected 4: give --channels 3"),
        ([np.zeros((4, 6, 4)) - 1], "image 0 has values from -1 to -1, outside the range from 0 to 65535"),
        (np.full((1, 4, 6, 4), np.nan), "values that are not finite"),
        (np.zeros((1, 4, 6, 4), np.complex64), "image values must be real numbers, got complex64"),
        ([np.zeros(3)], r"an image is a path, a PIL image, \(H, W\) or \(4, H, W\), got \(3,\)"),
        ([7], "got int"),
        ("missing.tiff", "missing.tiff cannot be read as an image: no such file"),
    ],
)
def test_other_images_are_refused(model, images, message):
    with pytest.raises(ValueError, match=message):
        model.features(images)


@pytest.mark.parametrize("workers", [0, 2])
def test_features_of_a_source_are_those_of_its_files(model, folder, tmp_path, workers):
    encoder = GeneratorEncoder(model)
    store = extract(encoder, open_source(folder), tmp_path / "out", batch_size=3, workers=workers)
    expected = model.features(sorted(folder.rglob("*.tiff")))
    np.testing.assert_allclose(store.as_numpy(store.specs[0]), expected, atol=1e-5)
    assert "4 channels of 0 to 65535" in store.meta["encoder"]["preprocessing"]
    transformer = FeatureExtractor(model).fit()
    np.testing.assert_allclose(transformer.transform(sorted(folder.rglob("*.tiff"))), expected, atol=1e-5)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_source_of_other_values_ends_extraction_in_one_sentence(model, tmp_path, workers):
    source = open_source(bands.write_bands(tmp_path / "in", 2, 12, 3))
    with pytest.raises(UnfitImage, match=r"^a/0000.tiff has 3 channels, expected 4: give --channels 3"):
        extract(GeneratorEncoder(model), source, tmp_path / "out", workers=workers)
    reader = loader.Prepared(source, GeneratorEncoder(model).prepare, GeneratorEncoder(model).example(), DEEP)
    assert reader.blank().shape == (4, *SIZE)


# samples -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value_range", "dtype"),
    [(DEEP, np.uint16), ((0.0, 255.0), np.uint8), ((-1000.0, 3000.0), np.float32), ((0.0, 0.1), np.float32)],
)
@pytest.mark.parametrize("channels", [1, 2, 4])
def test_samples_come_back_in_their_range(value_range, dtype, channels, tmp_path):
    model = of_range(value_range, channels)
    made = model.sample([0, 1, 2], seed=5)
    assert made.shape == (3, channels, *SIZE)
    assert made.min() >= 0
    assert made.max() <= 1
    values = model.in_range(made)
    assert values.shape == (3, *SIZE, channels)
    assert values.dtype == dtype
    assert np.ptp(values) > (value_range[1] - value_range[0]) / 9
    out = write_samples(model, tmp_path / "out", 3, [0, 1, 2], seed=5)
    assert not (out / "samples.npz").exists()
    for number in range(3):
        written = open_values(out / "images" / f"{number:06}.tiff")
        assert written.dtype == dtype
        np.testing.assert_array_equal(written, values[number])
    with (out / "labels.csv").open() as file:
        assert [row["file"] for row in csv.DictReader(file)] == [f"images/{number:06}.tiff" for number in range(3)]
    with Image.open(out / "grid.png") as grid:
        assert grid.mode in ("L", "RGB")
    source = open_source(out / "images")
    read = model.as_images([out / "images" / path for path in source.paths])
    torch.testing.assert_close(read, made, rtol=0, atol=0.51 / 255 if dtype == np.uint8 else 1e-5)


def test_a_folder_of_values_is_resumed(model, tmp_path):
    whole = write_samples(model, tmp_path / "whole", 5, batch_size=5)
    part = write_samples(model, tmp_path / "part", 2)
    (part / "images" / "000001.tiff").unlink()
    write_samples(model, part, 5, batch_size=2)
    for number in range(5):
        name = f"images/{number:06}.tiff"
        np.testing.assert_array_equal(open_values(whole / name), open_values(part / name))
    with pytest.raises(ValueError, match="holds more than 3 images, number 4 for one"):
        write_samples(model, part, 3)
    (part / "images" / "000000.tiff").write_bytes(b"II*\0")
    with pytest.raises(OSError, match=r"000000.tiff is no picture any more .*: delete it and run the same again"):
        write_samples(model, part, 5)


def test_a_saved_model_keeps_its_range(model, folder, tmp_path):
    model.save(tmp_path / "model")
    opened = load(tmp_path / "model")
    assert (opened.tokenizer.channels, opened.tokenizer.value_range) == (4, DEEP)
    paths = sorted(folder.rglob("*.tiff"))
    np.testing.assert_array_equal(opened.tokens(paths), model.tokens(paths))


def test_reconstructions_keep_to_the_values(model, folder):
    paths = sorted(folder.rglob("*.tiff"))
    pixels = as_tensor(torch.from_numpy(np.stack([bands.bands(12)])).float()) / 65535
    made = model.decode(model.encode(paths))
    assert made.shape == (8, 4, *SIZE)
    assert abs(float(made.mean()) - float(pixels.mean())) < 0.1


# what takes pictures alone -------------------------------------------------------------------------------------------


def test_painting_is_refused(model):
    picture, mask = Image.new("RGB", (12, 8)), (0, 0, 4, 4)
    refused = r"painting takes pictures of 8 bits, and this model reads 4 channels of 0 to 65535: give another model"
    for paint in (
        lambda: model.inpaint(picture, mask),
        lambda: model.edit(picture, mask, 0),
        lambda: model.outpaint(picture, left=2),
        lambda: model.variations(picture),
        lambda: model.watch(0),
    ):
        with pytest.raises(ValueError, match=refused):
            paint()


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "L"), (3, "RGB"), (5, "RGB")])
def test_previews_show_some_channels(channels, mode):
    image = torch.rand(channels, 4, 6)
    shown = preview(image)
    assert shown.mode == mode
    expected = to_pil(image[: len(shown.getbands())])
    assert shown.tobytes() == expected.tobytes()
    if channels in (2, 5):
        with pytest.raises(ValueError, match=f"a picture has 1 or 3 channels, not {channels}"):
            to_pil(image)
    assert model_grid(channels).mode in ("L", "RGB")


def model_grid(channels):
    """Return the grid that ARPG's published call returns."""
    return of_range(DEEP, channels)([0, 1], num_steps=2)


def test_bytes_are_no_values_of_a_larger_range(model, tmp_path):
    for images in (np.zeros((1, 4, 6, 4), np.uint8), [Image.new("RGBA", (6, 4))]):
        with pytest.raises(
            UnfitImage, match="image 0 is of 8 bits, where the range is from 0 to 65535: give files of one"
        ):
            model.features(images)
    assert of_range((0.0, 255.0), 4).features([Image.new("RGBA", (6, 4))]).shape[0] == 1


def test_commands_for_pictures_refuse_a_model_of_values(model, folder, tmp_path, capsys):
    model.save(tmp_path / "model")
    Image.new("RGB", (12, 8)).save(tmp_path / "picture.png")
    ours, out = tmp_path / "model", tmp_path / "out"
    refused = {
        "inpaint": ["inpaint", ours, tmp_path / "picture.png", "--box", 0, 0, 4, 4, "-o", out],
        "app": ["app", "--model", ours, "--no-browser"],
        "probe": ["probe", "knn", ours, folder, "--baselines", "-o", out],
        "fid": ["fid", ours, folder, "--evaluator", ours, "--guidance", 1, "-o", out],
    }
    if importlib.util.find_spec("gradio") is None:
        del refused["app"]
    for name, words in refused.items():
        assert cli.main([str(word) for word in words]) == 1, name
        (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("randfeat")]
        assert "pictures of 8 bits" in said, name
    assert not (tmp_path / "out" / "images").exists()


def test_probes_and_searches_of_arrays(tmp_path):
    """Reports show arrays that are no pictures by some of their channels."""
    for seed, split in enumerate(("train", "test")):
        bands.write_bands(tmp_path / "data" / split, 8, 12, 5, np.float32, seed, ".npy")
    source = open_source(tmp_path / "data", "train")
    network = tiny.model("randar", (2, 3))
    ours = tmp_path / "model"
    Pipeline(fit_patches(source, SIZE, 2, 7, value_range=(0.0, 1.0)), network, NAMES).save(ours)
    for words in (
        ["probe", "knn", ours, tmp_path / "data", "-o", tmp_path / "measured"],
        ["index", "build", tmp_path / "index", tmp_path / "data" / "train", "--model", ours],
        ["search", tmp_path / "index", tmp_path / "data" / "test", "-o", tmp_path / "found.txt"],
    ):
        assert cli.main([str(word) for word in words]) == 0
    assert (tmp_path / "measured" / "report.html").is_file()
    assert (tmp_path / "found.txt").read_text().count("/test/") == 8


def test_commands_read_values(model, folder, tmp_path, capsys):
    model.save(tmp_path / "model")
    words = ["extract", tmp_path / "model", folder, "-o", tmp_path / "features"]
    assert cli.main([str(word) for word in words]) == 0
    words = ["surprise", tmp_path / "model", *sorted(folder.rglob("*.tiff")), "-o", tmp_path / "surprise"]
    assert cli.main([str(word) for word in words]) == 0
    with Image.open(tmp_path / "surprise" / "sheet.png") as sheet:
        assert sheet.mode == "RGB"
    assert cli.main(["sample", str(tmp_path / "model"), "--out", str(tmp_path / "samples"), "--count", "2"]) == 0
    made = open_values(tmp_path / "samples" / "images" / "000001.tiff")
    assert (made.shape, made.dtype) == ((*SIZE, 4), np.uint16)
    bands.write_bands(tmp_path / "wrong", 2, 12, 3)
    capsys.readouterr()
    words = ["extract", tmp_path / "model", tmp_path / "wrong", "-o", tmp_path / "none"]
    assert cli.main([str(word) for word in words]) == 1
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "channels" in line]
    assert said.startswith("randfeat extract: a/0000.tiff has 3 channels, expected 4: give --channels 3")
