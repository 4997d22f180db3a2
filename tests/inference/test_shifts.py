"""Images read at several places: where they lie, and that the features are their mean."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from randfeat import Pipeline
from randfeat.features.opening import open_encoder
from randfeat.inference import readout
from randfeat.inference.readout import FeatureSpec, merge_shifts, sub_patch_shifts
from randfeat.tokenizers import PatchTokenizer

PLAIN = "raster/causal/token/L1/mean/mean"
IMAGES = np.random.default_rng(0).random((3, 4, 6)).astype(np.float32)


def pipeline():
    return Pipeline(PatchTokenizer.fit(torch.rand(9, 1, 4, 6), 7, 2), tiny.model("randar", (2, 3)))


@given(st.integers(1, 16), st.integers(1, 16), st.integers(1, 2))
def test_places_divide_a_token_and_lie_around_the_image(stride, count, channels):
    if count > stride:
        return
    size = 3 * stride, 4 * stride
    rows, columns = torch.meshgrid(*(torch.arange(side).float() for side in size), indexing="ij")
    image = torch.stack([rows, columns] * channels).unsqueeze(0)
    places = sub_patch_shifts(image, stride, count)
    assert places.shape == (1, count**2, 2 * channels, *size)
    moves = set()
    for place in places[0]:
        inside = place[:, stride:-stride, stride:-stride]
        down, right = ((image[0, axis, stride:-stride, stride:-stride] - inside[axis]).unique() for axis in (0, 1))
        moves.add((down.item(), right.item()))  # one number each: nothing but moved
        assert place[0].min() == max(0, -down.item())  # and the edge fills
    sides = sorted({down for down, _ in moves})
    assert len(moves) == count**2
    assert max(np.diff([*sides, sides[0] + stride]) - stride / count) < 1  # as evenly as pixels allow
    assert abs(sum(sides)) <= count


def test_one_place_is_the_image():
    image = torch.rand(2, 3, 4, 4)
    assert torch.equal(sub_patch_shifts(image, 2, 1), image.unsqueeze(1))
    for wrong in (0, 3):
        with pytest.raises(ValueError, match=f"{wrong} shifts a side: a token of 2 pixels has 1 to 2"):
            sub_patch_shifts(image, 2, wrong)


@pytest.mark.parametrize(
    "spec", [PLAIN, "raster+reversed/full/query/L1,L2/max/concat", "raster/full/query/L2/grid2/mean"]
)
def test_features_are_the_mean_over_places(spec):
    model = pipeline()
    places = sub_patch_shifts(torch.from_numpy(IMAGES).unsqueeze(1), model.tokenizer.stride, 2)
    expected = np.mean([model.features(places[:, i, 0].numpy(), spec) for i in range(4)], axis=0)
    found = model.features(IMAGES, f"{spec}/shifts2")
    assert not np.allclose(found, model.features(IMAGES, spec))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", [2, 3])
def test_maps_of_places_are_one_finer_map(side):
    """A network says where a token was cut: the finer map has the parts of the image in their order."""
    grid, stride = (2, 3), 4
    rows = torch.arange(grid[0] * stride).float()
    image = (rows[:, None] * 100 + torch.arange(grid[1] * stride)).expand(1, 1, -1, -1)
    places = sub_patch_shifts(image, stride, side)[:, :, 0]
    corners = places[:, :, stride // 2 :: stride, stride // 2 :: stride]  # what lies in the middle of each token
    finer = merge_shifts(corners.unsqueeze(2))[0, 0]
    assert finer.shape == (side * grid[0], side * grid[1])
    assert (finer.diff(dim=0) >= 0).all()
    assert (finer.diff(dim=1) >= 0).all()
    assert (finer // 100).unique().tolist() == sorted({row for row in (finer[:, 0] // 100).tolist()})


def test_a_finer_map_has_the_same_mean():
    model, dense = pipeline(), PLAIN.replace("/mean/mean", "/none/mean/shifts2")
    fine = model.features(IMAGES, dense)
    assert fine.shape == (3, 16, 4, 6)
    np.testing.assert_allclose(fine.mean((2, 3)), model.features(IMAGES, f"{PLAIN}/shifts2"), rtol=1e-4, atol=1e-5)


def test_an_encoder_reads_specs_with_and_without_shifts():
    model, specs = pipeline(), [f"{PLAIN}/shifts2", PLAIN, f"{PLAIN}/label1/shifts2"]
    encoder = open_encoder(model, specs)
    assert encoder.specs == tuple(specs)
    for read, spec in zip(encoder.features(IMAGES), specs, strict=True):
        np.testing.assert_allclose(read, model.features(IMAGES, spec), rtol=1e-5, atol=1e-6)
    batch = torch.from_numpy((IMAGES * 255).round().astype(np.uint8)[..., None])
    for read, spec in zip(encoder.encode(batch), specs, strict=True):
        np.testing.assert_allclose(read, model.features(batch.squeeze(-1).numpy(), spec), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=f"tokens do not move: leave the shifts out of {PLAIN}/shifts2"):
        encoder.encode_tokens(model.encode(IMAGES))


def test_what_has_no_such_places_is_refused():
    model = pipeline()
    for read in (lambda: model.features(IMAGES, f"{PLAIN}/shifts3"), lambda: open_encoder(model, [f"{PLAIN}/shifts3"])):
        with pytest.raises(ValueError, match="shifts3: a token of 2 pixels has no more shifts"):
            read()
    spec = FeatureSpec.parse(f"{PLAIN}/shifts2")
    with pytest.raises(ValueError, match="reads an image at 4 places, and the tokens are of 1"):
        readout.read(model.generator, model.encode(IMAGES), [spec])
