"""Painting in pictures: what is known survives, whatever the picture, the mask, the model and the framing."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import tiny
import torch
from damaged import noise_picture
from hypothesis import assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pipelines import make_pipeline

from randfeat import Guidance, Pipeline, Sampling, tokenizers
from randfeat.data import images as data
from randfeat.inference.editing import Framing, as_mask, complete, paint
from randfeat.inference.editing.canvas import decode, encode, windows
from randfeat.inference.editing.masks import fill, paste, token_mask
from randfeat.inference.likelihood import guess_class, known_log_prob
from randfeat.inference.sampling import UNKNOWN
from randfeat.models import MODELS, orders
from randfeat.tokenizers import PatchTokenizer
from randfeat.utils import rng
from randfeat.utils.drawing import gif, order_sheet

MASKS = arrays(bool, st.tuples(st.integers(1, 13), st.integers(1, 17)))
FITS = ("around", "whole", "tile")


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

FRAMINGS = st.builds(
    Framing,
    st.sampled_from(FITS),
    st.sampled_from([0, 0.3, 1]),
    cover=st.just(0),
    grow=st.integers(0, 2),
    overlap=st.sampled_from([0, 0.5, 0.9]),
    feather=st.integers(0, 3),
)


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


# pictures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
@given(MASKS, FRAMINGS, st.sampled_from([1, 3]), st.sampled_from([1, 3]))
@hypothesis_settings(max_examples=25)
def test_every_other_pixel_comes_back_bit_for_bit(name, mask, framing, of_model, of_picture):
    picture = noise_picture(*mask.shape, of_picture)
    painted = pipeline(name, of_model).inpaint(picture, mask, samples=2, framing=framing)
    for one in painted:
        assert (one.size, one.mode) == (picture.size, picture.mode)
        assert (np.asarray(one)[~mask] == np.asarray(picture)[~mask]).all()


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("name", MODELS)
def test_nothing_everything_and_one_pixel(name, fit):
    model, picture = pipeline(name), noise_picture(9, 7)
    nothing, everything, pixel = np.zeros((9, 7), bool), np.ones((9, 7), bool), np.zeros((9, 7), bool)
    pixel[4, 3] = True
    assert (np.asarray(model.inpaint(picture, nothing, framing=fit)[0]) == np.asarray(picture)).all()
    first, second = (np.asarray(one) for one in model.inpaint(picture, everything, samples=2, framing=fit))
    assert (first != second).any()
    # a full mask hides everything
    assert (first == np.asarray(model.inpaint(noise_picture(9, 7, seed=1), everything, framing=fit)[0])).all()
    one = np.asarray(model.inpaint(picture, pixel, framing=fit)[0])
    assert (one != np.asarray(picture)).sum() <= 1


@pytest.mark.parametrize("fit", FITS)
def test_what_is_hidden_is_never_read(fit):
    model, mask = pipeline("randar", 3), as_mask((3, 2, 9, 8), (11, 14))
    picture = np.asarray(noise_picture(11, 14, 3))
    other = np.where(mask[..., None], 255 - picture, picture)
    how = Framing(fit, feather=2)
    first, second = (model.inpaint(Image.fromarray(p), mask, framing=how)[0] for p in (picture, other))
    assert (np.asarray(first)[mask] == np.asarray(second)[mask]).all()


@pytest.mark.parametrize("name", MODELS)
def test_at_the_models_size_it_is_what_complete_and_decode_make(name):
    model = pipeline(name)
    pictures = [noise_picture(4, 6, seed=seed) for seed in range(3)]
    mask = as_mask((3, 1, 5, 3), (4, 6))
    how = Sampling(tiny.steps(model.generator, 2), guidance=Guidance(2))
    painted = model.inpaint(pictures, mask, ["cat", None, 2], sampling=how, seed=4)
    known = torch.from_numpy(~token_mask(mask, (2, 3)).flatten())
    tokens = model.complete(model.encode(pictures), known, ["cat", None, 2], 4, how)
    expected = model.decode(tokens)
    for one, picture, made in zip(painted, pictures, expected, strict=True):
        assert (np.asarray(one) == np.where(mask, np.asarray(data.to_pil(made)), np.asarray(picture))).all()
    full = model.inpaint(pictures[0], np.ones((4, 6), bool), "dog", sampling=how, seed=7)[0]
    assert (np.asarray(full) == np.asarray(data.to_pil(model.sample(["dog"], how, seed=7)[0]))).all()


def test_a_seed_alone_fixes_a_result():
    model = pipeline("randar")
    pictures = [noise_picture(4, 6), noise_picture(9, 8), noise_picture(4, 6, seed=2)]
    masks = [(0, 0, 3, 3), (2, 2, 8, 7), (0, 0, 3, 3)]
    together = model.inpaint(pictures, masks, ["cat", "dog", None], samples=2, seed=10)
    assert len(together) == 6
    for number, painted in enumerate(together):
        which = number // 2
        alone = model.inpaint(pictures[which], masks[which], ["cat", "dog", None][which], seed=10 + number)[0]
        assert (np.asarray(alone) == np.asarray(painted)).all()
    small = model.inpaint(pictures, masks, ["cat", "dog", None], samples=2, seed=range(10, 16), batch_size=1)
    assert all((np.asarray(a) == np.asarray(b)).all() for a, b in zip(together, small, strict=True))


def test_pictures_of_every_kind_are_painted_in():
    model = pipeline("randar", 3)
    clear = Image.new("RGBA", (9, 8), (10, 20, 30, 0))
    deep = Image.fromarray(np.full((8, 9), 257 * 40, np.uint16))
    for picture, mode, corner in ((clear, "RGB", (255, 255, 255)), (deep, "L", 40), (clear.convert("P"), "RGB", None)):
        painted = model.inpaint(picture, (4, 4, 9, 8))[0]
        assert (painted.mode, painted.size) == (mode, (9, 8))
        if corner is not None:
            assert painted.getpixel((0, 0)) == corner
    with pytest.raises(ValueError, match="cannot be read as a picture"):
        model.inpaint("missing.png", (0, 0, 1, 1))


@pytest.mark.parametrize("name", MODELS)
@given(st.integers(1, 13), st.integers(1, 13), st.tuples(*[st.integers(0, 5)] * 4), st.sampled_from(FITS))
@hypothesis_settings(max_examples=12)
def test_the_picture_inside_what_is_painted_around_survives(name, width, height, sides, fit):
    model, picture = pipeline(name), noise_picture(height, width)
    left, top, right, bottom = sides
    painted = model.outpaint(picture, None, *sides, framing=fit)[0]
    assert painted.size == (left + width + right, top + height + bottom)
    inside = painted.crop((left, top, left + width, top + height))
    assert (np.asarray(inside) == np.asarray(picture)).all()


def test_painting_around_keeps_the_pictures_tokens():
    model = pipeline("randar")
    picture = data.to_pil(model.decode(torch.tensor([[0, 1, 2, 3, 4, 5]]))[0])
    for sides in ((3, 1, 4, 5), (0, 0, 2, 0), (6, 4, 0, 0)):
        painted = model.outpaint(picture, None, *sides)[0]
        left, top = sides[:2]
        inside = np.asarray(painted.crop((left, top, left + 6, top + 4)))
        assert model.encode(Image.fromarray(inside)).tolist() == [[0, 1, 2, 3, 4, 5]]
    centred = model.outpaint(picture, (9, 7))[0]
    assert (np.asarray(centred.crop((1, 1, 7, 5))) == np.asarray(picture)).all()
    for wrong, message in (
        ({"size": (5, 9)}, "more than the size 5 x 9: give a larger one"),
        ({"size": (9, 9), "left": 1}, "a size or sides, not both"),
        ({"left": -1}, "sides are whole numbers of pixels from 0"),
    ):
        with pytest.raises(ValueError, match=message):
            model.outpaint(picture, **wrong)


def test_an_edit_is_guided_towards_its_class():
    model, picture = pipeline("arpg"), noise_picture(4, 6)
    mask = np.ones((4, 6), bool)
    edited = model.edit(picture, mask, "dog")[0]
    guided = model.inpaint(picture, mask, "dog", sampling=Sampling(guidance=Guidance(2)))[0]
    assert (np.asarray(edited) == np.asarray(guided)).all()
    own = model.edit(picture, mask, "dog", sampling=Sampling())[0]
    assert (np.asarray(own) == np.asarray(model.inpaint(picture, mask, "dog")[0])).all()


# guessing ----------------------------------------------------------------------------------------------------


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


def test_a_guess_takes_the_place_of_no_label_alone():
    model, mask = pipeline("randar"), (0, 2, 6, 4)
    pictures = [noise_picture(4, 6, seed=seed) for seed in range(4)]
    known = torch.from_numpy(~token_mask(as_mask(mask, (4, 6)), (2, 3)).flatten())
    guessed = guess_class(model.generator, model.encode(pictures), known, 3).tolist()
    assert len(set(guessed)) > 1

    def same(a, b):
        return all((np.asarray(x) == np.asarray(y)).all() for x, y in zip(a, b, strict=True))

    assert same(model.inpaint(pictures, mask, guess=3), model.inpaint(pictures, mask, guessed))
    assert same(model.inpaint(pictures, mask, "cow", guess=3), model.inpaint(pictures, mask, "cow"))
    *_, last = model.watch(image=pictures[0], mask=mask, guess=3)
    assert same([last.picture], model.inpaint(pictures[0], mask, guess=3))
    unlabelled = Pipeline(model.tokenizer, tiny.model("randar", (2, 3), num_classes=0))
    with pytest.raises(ValueError, match="this model has no classes to guess from: leave guess out"):
        unlabelled.inpaint(pictures, mask, guess=1)


@pytest.mark.parametrize("name", MODELS)
def test_variations_keep_a_share_of_the_tokens(name):
    model = pipeline(name)
    picture = data.to_pil(model.decode(torch.tensor([[0, 1, 2, 3, 4, 5]]))[0])
    tokens = torch.arange(6)
    for keep in (0, 0.5, 1):
        made = model.encode(model.variations(picture, keep, samples=8))
        same = (made == tokens).sum(1)
        assert (same >= round(6 * keep)).all()
        if keep == 0.5:
            assert len({tuple(row) for row in (made == tokens).tolist()}) > 1  # each keeps others
    larger = model.variations([noise_picture(11, 5), noise_picture(4, 6)], samples=2, seed=3)
    assert [one.size for one in larger] == [(5, 11)] * 2 + [(6, 4)] * 2
    alone = model.variations(noise_picture(4, 6), seed=6)[0]
    assert (np.asarray(alone) == np.asarray(larger[3])).all()
    with pytest.raises(ValueError, match="keep must be a share of the tokens, from 0 to 1, got 2"):
        model.variations(picture, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mask": np.ones((4, 5), bool)}, "the mask is 5 pixels wide and 4 high, the picture 6 and 4"),
        ({"mask": [(0, 0, 1, 1)] * 2}, "2 masks for 1 pictures"),
        ({"samples": 0}, "samples must be a whole number from 1, got 0"),
        ({"batch_size": 0}, "batch_size must be a whole number from 1, got 0"),
        ({"label": ["cat", "dog"]}, "2 labels for 1 pictures"),
        ({"label": "fox"}, "unknown class 'fox'"),
        ({"framing": "stretch"}, "fit must be one of"),
        ({"guess": 0.5}, "guess must be a whole number of orders"),
        ({"seed": [1, 2]}, "2 seeds for 1 images"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        pipeline("randar").inpaint(noise_picture(4, 6), **{"mask": (0, 0, 2, 2), **arguments})


# watching ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_watching_ends_with_the_result(name):
    model = pipeline(name)
    frames = list(model.watch("dog", seed=3))
    assert (np.asarray(frames[0].picture) == 128).all()
    assert sorted(frames[-1].made_at.flatten()) == [1, 2, 3, 4, 5, 6]
    expected = data.to_pil(model.sample(["dog"], seed=3)[0])
    assert (np.asarray(frames[-1].picture) == np.asarray(expected)).all()
    picture, mask = noise_picture(9, 13), as_mask((2, 3, 11, 8), (9, 13))
    for fit in FITS:
        frames = list(model.watch(image=picture, mask=mask, framing=fit))
        assert (np.asarray(frames[-1].picture) == np.asarray(model.inpaint(picture, mask, framing=fit)[0])).all()
        assert all((np.asarray(frame.picture)[~mask] == np.asarray(picture)[~mask]).all() for frame in frames)
        assert frames[-1].made_at.max() == len(frames) - 1
    with pytest.raises(ValueError, match="a mask says where to paint in a picture"):
        model.watch(image=picture)


def test_watching_goes_on_while_the_image_is_gone_over_again():
    model, how = pipeline("randar"), Sampling(sweeps=1)
    frames = list(model.watch("dog", sampling=how))
    assert len(frames) == 1 + 6 + 6
    expected = data.to_pil(model.sample(["dog"], how)[0])
    assert (np.asarray(frames[-1].picture) == np.asarray(expected)).all()


def test_frames_become_a_gif_and_their_order_a_sheet(tmp_path):
    frames = list(pipeline("randar").watch("dog"))
    (tmp_path / "watch.gif").write_bytes(gif([frame.picture for frame in frames], 50))
    with Image.open(tmp_path / "watch.gif") as moving:
        assert moving.n_frames == len(frames)
        assert moving.info["duration"] == 50
    sheet = np.asarray(order_sheet(np.array([[0, 1], [-1, 2]]), 100))
    assert sheet.shape == (100, 100, 3)
    assert (sheet[25, 25] == 255).all()  # known
    assert (sheet[75, 25] == 170).all()  # not yet
    assert sheet[5, 55].sum() < sheet[55, 55].sum()  # later is lighter
    assert len(np.unique(sheet[:50, 50:].reshape(-1, 3), axis=0)) > 2  # with a number
    large = np.asarray(order_sheet(np.arange(1, 65 * 65 + 1).reshape(65, 65)))
    assert len(np.unique(large[:7, :7].reshape(-1, 3), axis=0)) == 1  # without


@pytest.mark.parametrize("name", ["llamagen_vq", "maskgit_vq"])
def test_a_network_for_a_tokenizer_paints_too(name):
    small = dict(vocab_size=40, code_dim=6, width=32, multipliers=(1, 2, 1), num_res_blocks=1)
    model = Pipeline(tokenizers.create(name, **small), tiny.model("randar", (2, 3), vocab_size=40))
    stride, picture = model.tokenizer.stride, noise_picture(21, 30, 3)
    mask = as_mask((3, 5, 20, 19), (21, 30))
    for fit in FITS:
        painted = np.asarray(model.inpaint(picture, mask, framing=Framing(fit, margin=0.2, feather=2))[0])
        assert (painted[~mask] == np.asarray(picture)[~mask]).all()
    wider = model.outpaint(picture, right=3 * stride)[0]
    assert (np.asarray(wider)[:, :30] == np.asarray(picture)).all()
    tokens = torch.randint(40, (1, 5, 7))
    faded = decode(model.decode, tokens, (2, 3), stride)
    assert faded.shape == (1, 3, 5 * stride, 7 * stride)
    assert ((faded >= 0) & (faded <= 1)).all()
