"""The one rule for images that cannot be read, in Python: `on_error` raises, skips with a warning, or calls."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from damaged import noise_picture
from pipelines import make_pipeline, make_sampler

from randfeat import FeatureExtractor, open_encoder
from randfeat.data.errors import NoneReadable, SkippedImage, SkippedImages, UnreadableImage

REASON = "text, no picture"


@pytest.fixture
def paths(tmp_path):
    """Five images, of which the second and the last are none."""
    made = [tmp_path / f"{number}.png" for number in range(5)]
    for number, path in enumerate(made):
        if number in (1, 4):
            path.write_text("a note that somebody renamed")
        else:
            noise_picture(5, 7, 3, number).save(path)
    return made


def good(paths):
    return [paths[0], paths[2], paths[3]]


READERS = {
    "features": lambda model, images, **how: model.features(images, **how),
    "log p": lambda model, images, **how: model.log_prob(images, orders=2, **how).each.numpy(),
    "classes": lambda model, images, **how: model.classify(images, orders=2, **how).log_prob.numpy(),
    "surprisal": lambda model, images, **how: model.surprisal(images, orders=2, **how).numpy(),
    "encoder": lambda model, images, **how: open_encoder(model).features(images, **how)[0],
    "scikit-learn": lambda model, images, batch_size=64, on_error="raise": FeatureExtractor(
        model, None, batch_size, on_error=on_error
    ).fit_transform(images),
    "datasets": lambda model, images, batch_size=64, on_error="raise": model.as_map_fn(on_error=on_error)(
        {"image": list(map(str, images))}
    )["features"],
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_a_skipped_image_is_a_row_of_nan_and_listed(paths, name, batch_size):
    read, model = READERS[name], make_sampler(3)
    expected = read(model, good(paths))
    with pytest.warns(SkippedImages, match=f"2 of 5 images skipped.*2 {REASON}") as caught:
        found = read(model, paths, batch_size=batch_size, on_error="skip")
    (warning,) = caught
    assert warning.message.skipped == [(str(path), REASON) for path in (paths[1], paths[4])]
    assert len(found) == 5
    assert np.isnan(found[[1, 4]]).all()
    np.testing.assert_allclose(found[[0, 2, 3]], expected, rtol=1e-4, atol=1e-5)
    called: list[SkippedImage] = []
    again = read(model, paths, batch_size=batch_size, on_error=called.append)  # and no warning, which would fail
    np.testing.assert_array_equal(again, found)
    assert called == warning.message.skipped


@pytest.mark.parametrize("name", READERS)
def test_by_default_the_first_one_raises_with_its_path(paths, name):
    with pytest.raises(UnreadableImage, match=rf"1\.png cannot be read as a picture: {REASON}"):
        READERS[name](make_sampler(3), paths)
    with pytest.raises(ValueError, match="on_error must be"):
        READERS[name](make_sampler(3), paths, on_error="ignore")


@pytest.mark.parametrize("name", sorted({*READERS} - {"datasets"}))
def test_none_that_can_be_read_is_an_error(paths, name):
    says = rf"none of the 2 images could be read \(2 {REASON}\): .*1.png, .*4.png"
    with pytest.raises(NoneReadable, match=says) as caught:
        READERS[name](make_sampler(3), [paths[1], paths[4]], on_error="skip")
    assert [one.path for one in caught.value.skipped] == [str(paths[1]), str(paths[4])]


def test_a_skipped_image_has_no_class(paths):
    model, called = make_sampler(3), []
    found = model.classify(paths, orders=2, on_error=called.append, batch_size=2)
    expected = model.classify(good(paths), orders=2)
    assert [*found.skipped] == [1, 4]
    assert found.best.tolist() == [expected.best[0], -1, *expected.best[1:], -1]
    assert [len(ranked) for ranked in found.ranked()] == [3, 0, 3, 3, 0]
    assert found.passes.tolist() == [6, 0, 6, 6, 0]
    kept = [found.top(1)[row][0].name for row in (0, 2, 3)]
    assert kept == [one[0].name for one in expected.top(1)]


def test_labels_stay_with_their_images(paths):
    model, labels = make_sampler(3), [0, 1, 2, 0, 1]
    found = model.log_prob(paths, labels, 2, on_error=lambda one: None, batch_size=2).mean
    torch.testing.assert_close(found[[0, 2, 3]], model.log_prob(good(paths), [0, 2, 0], 2).mean)
    for few in (labels[:3], [*labels, 0]):
        with pytest.raises(ValueError, match="labels for"):
            model.log_prob(paths, few, 2, on_error=lambda one: None)


def test_a_batch_of_datasets_without_a_readable_image(paths):
    model = make_sampler(3)
    read = model.as_map_fn(on_error="skip")
    width = model.features(good(paths)).shape[1]
    with pytest.warns(SkippedImages, match="2 of 2 images skipped"):
        found = read({"image": [str(paths[1]), str(paths[4])]})["features"]
    assert found.shape == (2, width)
    assert np.isnan(found).all()


def test_undecoded_cells_of_datasets(paths):
    model = make_sampler(3)
    cells = [
        {"bytes": paths[0].read_bytes(), "path": None},
        {"bytes": paths[1].read_bytes(), "path": "note.png"},
        None,
        {"bytes": None, "path": str(paths[2])},
        paths[3].read_bytes(),
    ]
    with pytest.warns(SkippedImages) as caught:
        found = model.as_map_fn(on_error="skip")({"image": cells})["features"]
    assert caught[0].message.skipped == [("note.png", REASON), ("image 2", "an empty cell")]
    np.testing.assert_allclose(found[[0, 3, 4]], model.features(good(paths)), rtol=1e-4, atol=1e-5)


def test_images_of_values(tmp_path):
    from randfeat.tokenizers import PatchTokenizer

    stacked = torch.rand(6, 2, 4, 6, generator=torch.Generator().manual_seed(1))
    model = make_pipeline("randar")
    model.tokenizer = PatchTokenizer.fit(stacked, 7, 2, value_range=(0.0, 10.0))
    np.save(tmp_path / "a.npy", np.full((4, 6, 2), 3.0, np.float32))
    np.save(tmp_path / "b.npy", np.full((4, 6, 2), np.nan, np.float32))
    called: list[SkippedImage] = []
    found = model.features([tmp_path / "a.npy", tmp_path / "b.npy"], on_error=called.append)
    assert called == [(str(tmp_path / "b.npy"), "values that are not finite")]
    assert np.isnan(found).any(1).tolist() == [False, True]


def test_readable_images_warn_of_nothing(paths):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = make_sampler(3)
        np.testing.assert_array_equal(
            model.features(good(paths), on_error="skip"), model.features(good(paths), on_error="skip", batch_size=64)
        )
        assert model.features(np.zeros((2, 4, 6, 3), np.uint8), on_error="skip").shape[0] == 2
