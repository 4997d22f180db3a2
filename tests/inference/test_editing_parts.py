"""Masks, framing and canvases: which tokens are made anew, and that the known ones survive."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import tiny
import torch
from edits import FRAMINGS, MASKS
from hypothesis import assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pipelines import make_pipeline

from randfeat import Sampling
from randfeat.inference.editing import Framing, as_mask, complete, paint
from randfeat.inference.editing.canvas import decode, encode, windows
from randfeat.inference.editing.masks import fill, paste, token_mask
from randfeat.inference.likelihood import guess_class, known_log_prob
from randfeat.inference.sampling import UNKNOWN
from randfeat.models import MODELS, orders
from randfeat.tokenizers import PatchTokenizer
from randfeat.utils import rng


@cache
def pipeline(name, channels=1):
    return make_pipeline(name, channels, {"steps": 3})


# masks -------------------------------------------------------------------------------------------------------


@given(MASKS, st.integers(1, 6), st.integers(1, 6))
def test_a_token_with_one_masked_pixel_is_masked(mask, rows, columns):
    tokens = token_mask(mask, (rows, columns))
    height, width = mask.shape
    for row in range(rows):
        for column in range(columns):
            # all pixels that a token of any size touches
            top, bottom = row * height // rows, -(-(row + 1) * height // rows)
            left, right = column * width // columns, -(-(column + 1) * width // columns)
            assert tokens[row, column] == mask[top:bottom, left:right].any()


def test_cover_and_grow_say_which_tokens_are_made_anew():
    mask = np.zeros((8, 8), bool)
    mask[4:6, 4] = True  # half of one token of 2 x 2
    assert token_mask(mask, (4, 4), cover=0.49).sum() == 1
    assert token_mask(mask, (4, 4), cover=0.5).sum() == 0
    grown = token_mask(mask, (4, 4), grow=1)
    assert grown[1:, 1:].all()
    assert grown.sum() == 9


@given(MASKS, st.integers(0, 5), st.booleans())
def test_pasting_keeps_every_other_pixel(mask, feather, coloured):
    shape = (*mask.shape, 3) if coloured else mask.shape
    original, made = (np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8) for seed in (0, 1))
    pasted = paste(original, made, mask, feather)
    assert (pasted[~mask] == original[~mask]).all()
    if not feather or mask.all():
        assert (pasted[mask] == made[mask]).all()


def test_a_feather_takes_the_seam_away_and_fades():
    original, made = np.full((1, 9), 100, np.uint8), np.full((1, 9), 160, np.uint8)
    mask = np.arange(9)[None] >= 3
    assert paste(original, made, mask, 2).tolist() == [[100, 100, 100, 120, 140, 160, 160, 160, 160]]


@given(MASKS)
def test_what_is_hidden_is_filled_from_beside_it(mask):
    pixels = np.random.default_rng(0).integers(0, 256, mask.shape, dtype=np.uint8)
    filled = fill(pixels, mask)
    assert (filled == fill(np.where(mask, 7, pixels).astype(np.uint8), mask)).all()
    assert (filled[~mask] == pixels[~mask]).all()


def test_masks_come_in_many_forms(tmp_path):
    expected = np.zeros((4, 6), bool)
    expected[1:3, 2:5] = True
    white = Image.fromarray((expected * 255).astype(np.uint8))
    white.save(tmp_path / "mask.png")
    clear = Image.new("RGBA", (6, 4), "black")
    clear.putalpha(Image.fromarray((~expected * 255).astype(np.uint8)))
    for mask in (
        expected,
        torch.from_numpy(expected),
        expected.astype(int),
        expected.astype(np.uint8),
        expected * np.float32(1),
        white,
        white.convert("1"),
        white.convert("RGB"),
        clear,
        tmp_path / "mask.png",
        (2, 1, 5, 3),
        [2, 1, 5, 3],
    ):
        assert (as_mask(mask, (4, 6)) == expected).all()


@pytest.mark.parametrize("box", [(0, 0, 7, 4), (3, 0, 3, 4), (-1, 0, 2, 2), (4, 0, 2, 2)])
def test_a_box_outside_is_refused(box):
    with pytest.raises(ValueError, match="does not lie in a picture 6 pixels wide and 4 high"):
        as_mask(box, (4, 6))


# framing -----------------------------------------------------------------------------------------------------


@given(MASKS, FRAMINGS, st.tuples(st.integers(1, 3), st.integers(1, 4)), st.integers(1, 3))
def test_a_view_holds_the_mask_and_some_grid(mask, framing, grid, stride):
    assume(mask.any())
    view = framing.view(mask, grid, stride)
    left, top, right, bottom = view.box
    rows, columns = np.nonzero(mask)
    assert top <= rows.min()
    assert rows.max() < bottom
    assert left <= columns.min()
    assert columns.max() < right
    if framing.fit == "tile":
        assert (bottom - top, right - left) == (view.grid[0] * stride, view.grid[1] * stride)
        assert (top % stride, left % stride) == (0, 0)
        assert view.grid[0] >= grid[0]
        assert view.grid[1] >= grid[1]
    else:
        assert view.grid == grid
    array = np.arange(mask.size).reshape(mask.shape)
    ours, theirs = view.inside(mask.shape)
    assert (view.of(array)[theirs] == array[ours]).all()


def test_around_is_the_smallest_window_that_holds_mask_and_margin():
    mask = np.zeros((100, 200), bool)
    mask[40:50, 180:190] = True
    box = Framing(margin=0.5).view(mask, (4, 8), 2).box
    assert (box[3] - box[1], box[2] - box[0]) == (20, 40)  # twice the mask, in the model's aspect
    assert box[2] == 200  # moved into the picture
    small = np.zeros((100, 200), bool)
    small[50, 100] = True
    box = Framing().view(small, (4, 8), 2).box
    assert (box[3] - box[1], box[2] - box[0]) == (8, 16)  # the model's own size
    assert Framing("whole").view(small, (4, 8), 2).box == (0, 0, 200, 100)
    assert Framing("whole").view(small, (8, 8), 2).box == (0, -50, 200, 150)
    assert Framing().view(np.ones((3, 4), bool), (4, 8), 2).box == (-1, 0, 5, 3)  # smaller than the model: all of it


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fit": "stretch"}, "fit must be one of around, whole, tile, got 'stretch'"),
        ({"cover": 1}, "cover must be a share, from 0 to less than 1, got 1"),
        ({"overlap": -0.1}, "overlap must be a share"),
        ({"margin": -1}, "margin must be 0 or more, got -1"),
        ({"grow": 0.5}, "grow must be a whole number from 0, got 0.5"),
        ({"feather": -1}, "feather must be a whole number from 0, got -1"),
    ],
)
def test_wrong_framings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Framing(**settings)


# tokens ------------------------------------------------------------------------------------------------------


def test_known_tokens_come_back_and_matter(model):
    tokens, label, order = tiny.batch(model, 3)
    known = torch.zeros_like(tokens, dtype=torch.bool).scatter(1, order[:, :4], True)  # other places in each image
    seeds = torch.arange(3)
    made = complete(model, tokens, known, label, seeds, Sampling())
    assert torch.equal(made[known], tokens[known])
    assert torch.equal(made, complete(model, torch.where(known, tokens, 0), known, label, seeds, Sampling()))
    changed = (tokens + 1) % model.vocab_size
    other = complete(model, changed, known, label, seeds, Sampling())
    assert not torch.equal(made[~known], other[~known])
    if model.raster_only:  # what comes before the first known token of an image cannot depend on it
        first = known.long().cumsum(1) == 0
        assert torch.equal(made[first], other[first])


def test_one_mask_serves_every_image_and_nothing_unknown_draws_nothing(model):
    tokens, label, _ = tiny.batch(model)
    known = torch.arange(model.num_tokens) % 2 == 0
    seeds = torch.arange(3)
    shared, own = (complete(model, tokens, k, label, seeds, Sampling()) for k in (known, known.expand(3, -1)))
    assert torch.equal(shared, own)
    assert torch.equal(complete(model, tokens, known | True, label, seeds, Sampling()), tokens)


KNOWN = arrays(bool, st.tuples(st.integers(2, 6), st.integers(3, 7)))


@given(KNOWN, st.sampled_from([(1, 1), (1, 2), (2, 3)]))
def test_windows_leave_nothing_unknown(known, step):
    left = ~known
    for window in windows(known, (2, 3), step):
        assert left[window].any()  # each has something to do
        assert left[window].shape == (2, 3)
        left[window] = False
    assert not left.any()


def test_windows_go_from_what_is_known_outwards():
    known = np.zeros((2, 9), bool)
    known[:, 6:] = True
    columns = [window[1].start for window in windows(known, (2, 3), (1, 1))]
    assert columns == [5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize("name", MODELS)
@given(known=KNOWN)
@hypothesis_settings(max_examples=6)
def test_known_tokens_of_a_canvas_survive(name, known):
    model = pipeline(name).generator
    tokens = torch.randint(7, (2, *known.shape), generator=torch.Generator().manual_seed(1))
    label, seeds = torch.tensor([0, 3]), torch.tensor([5, 6])
    kept = torch.from_numpy(known)
    canvases = list(paint(model, tokens, kept, label, seeds, Sampling(), (1, 2)))
    for canvas in canvases:
        assert torch.equal(canvas[:, kept], tokens[:, kept])
    assert (canvases[0][:, ~kept] == UNKNOWN).all()
    assert (canvases[-1] != UNKNOWN).all()
    *_, alone = paint(model, tokens[1:], kept, label[1:], seeds[1:], Sampling(), (1, 2))
    assert torch.equal(alone[0], canvases[-1][1])  # whatever the batch


def test_a_large_canvas_is_encoded_and_decoded_in_windows():
    tokenizer = PatchTokenizer.fit(torch.rand(4, 3, 8, 8), 16, 2)
    tokens = torch.randint(16, (2, 7, 5))
    whole = tokenizer.decode(tokens)
    assert torch.equal(encode(tokenizer, whole, (2, 3)), tokens)

    def pixels_of(part):
        assert part.shape[1] == 6
        return tokenizer.decode(part.unflatten(1, (2, 3)))

    torch.testing.assert_close(decode(pixels_of, tokens, (2, 3), 2), whole)


# likelihood of known tokens ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_what_is_known_is_scored_by_the_chain_rule(name):
    model = pipeline(name).generator
    tokens, _, _ = tiny.batch(model, 2)
    known = torch.tensor([True, True, False, True, False, False])
    scores = known_log_prob(model, tokens, known, 2)
    assert scores.shape == (2, 3)
    hidden = torch.where(known, tokens, 0)
    assert torch.equal(known_log_prob(model, hidden, known, 2), scores)  # the others do not matter
    if model.raster_only:
        expected = chain_rule(model, tokens, torch.arange(6), 2)
    else:
        orders_read = [orders.random(model.grid, rng.derive(torch.tensor([0]), 7, k))[0] for k in range(2)]
        if not model.many_orders:
            orders_read = [orders.raster(model.grid)] * 2
        expected = sum(chain_rule(model, tokens, orders.known_first(order, known), 3) for order in orders_read) / 2
    torch.testing.assert_close(scores, expected)
    assert torch.equal(guess_class(model, tokens, known, 2), expected.argmax(1))
    assert guess_class(model, tokens, known & False, 2).tolist() == [3, 3]  # nothing known, the null class
    everything = known_log_prob(model, tokens, known | True, 2).sum(1)
    assert torch.isfinite(everything).all()


def chain_rule(model, tokens, order, count):
    """Token by token, each given those before it: (B, classes)."""
    columns = []
    for label in range(model.num_classes):
        logits = model(tokens, torch.full((len(tokens),), label), order.expand(len(tokens), -1)).log_softmax(-1)
        columns.append(sum(logits[range(len(tokens)), i, tokens[:, order[i]]] for i in range(count)))
    return torch.stack(columns, 1).detach()
