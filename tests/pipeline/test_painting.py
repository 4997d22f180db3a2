"""Painting in pictures: what is known survives, whatever the picture, the mask, the model and the framing."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import tiny
import torch
from damaged import noise_picture
from edits import FITS, FRAMINGS, MASKS
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image
from pipelines import make_pipeline

from randfeat import Guidance, Pipeline, Sampling, tokenizers
from randfeat.data.images import to_pil
from randfeat.inference.editing import Framing, as_mask
from randfeat.inference.editing.canvas import decode
from randfeat.inference.editing.masks import token_mask
from randfeat.inference.likelihood import guess_class
from randfeat.models import MODELS
from randfeat.utils.drawing import gif, order_sheet


@cache
def pipeline(name, channels=1):
    return make_pipeline(name, channels, {"steps": 3})


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
    painted = model.inpaint(pictures, mask, ["cat", None, 2], sampling=how, seed=4, framing=Framing(feather=0))
    known = torch.from_numpy(~token_mask(mask, (2, 3)).flatten())
    tokens = model.complete(model.encode(pictures), known, ["cat", None, 2], 4, how)
    expected = model.decode(tokens)
    for one, picture, made in zip(painted, pictures, expected, strict=True):
        assert (np.asarray(one) == np.where(mask, np.asarray(to_pil(made)), np.asarray(picture))).all()
    full = model.inpaint(pictures[0], np.ones((4, 6), bool), "dog", sampling=how, seed=7)[0]
    assert (np.asarray(full) == np.asarray(to_pil(model.sample(["dog"], how, seed=7)[0]))).all()


@pytest.mark.parametrize("size", [(6, 4), (18, 4)])  # one window of tokens, and several
def test_what_is_painted_is_of_the_tokens_that_are_allowed(size):
    model = pipeline("randar")
    picture, mask = noise_picture(size[1], size[0]), np.ones(size[::-1], bool)
    bias = torch.full((model.generator.vocab_size,), -torch.inf)
    bias[3] = 0.0
    framing = Framing("tile", feather=0)
    (painted,) = model.inpaint(picture, mask, framing=framing, bias=bias)
    patch = model.tokenizer.decode(torch.full((1, size[1] // 2, size[0] // 2), 3))[0]
    assert (np.asarray(painted) == np.asarray(to_pil(patch))).all()
    with pytest.raises(ValueError, match=r"a bias of pictures has the shape .* got \(6, 7\)"):
        model.inpaint(picture, mask, bias=bias.expand(6, -1))


JOBS = {
    "inpaint": lambda model, pictures, **how: model.inpaint(pictures, [(0, 0, *one.size) for one in pictures], **how),
    "edit": lambda model, pictures, **how: model.edit(pictures, [(0, 0, *one.size) for one in pictures], "dog", **how),
    "outpaint": lambda model, pictures, **how: model.outpaint(pictures, right=6, top=4, **how),
    "variations": lambda model, pictures, **how: model.variations(pictures, 0.0, **how),
    "watch": lambda model, pictures, **how: [
        [*model.watch(None, pictures[0], (0, 0, *pictures[0].size), **how)][-1].picture
    ],
}


@pytest.mark.parametrize("job", JOBS)
def test_every_job_takes_a_bias_by_place(job):
    """One token alone is left in each third of the result."""
    model, pictures = pipeline("randar"), [noise_picture(4, 6), noise_picture(8, 18, seed=1)]
    bias = torch.full((1, 3, model.generator.vocab_size), -torch.inf)
    for third, token in enumerate((3, 5, 1)):
        bias[0, third, token] = 0.0
    framing = {} if job == "variations" else {"framing": Framing("tile", feather=0)}
    results = JOBS[job](model, pictures, bias=bias, **framing)
    for picture, result in zip(pictures, results, strict=job != "watch"):
        made = np.asarray(result)
        if job == "variations" and result.size != (6, 4):
            continue  # it is scaled, so that its pixels are no token's
        tokens = torch.tensor([[3, 5, 1]]).repeat_interleave(result.width // 6, 1).repeat(result.height // 2, 1)
        expected = np.asarray(to_pil(model.tokenizer.decode(tokens[None])[0]))
        drawn = np.ones(made.shape, bool)
        if job == "outpaint":
            drawn[4:, : picture.width] = False
        assert (made == expected)[drawn].all()
    with pytest.raises(ValueError, match="a bias of pictures has the shape"):
        JOBS[job](model, pictures, bias=bias[:, 0])


@pytest.mark.parametrize(("size", "half"), [((6, 4), 1), ((24, 16), 4), ((21, 30), 8)])  # tokens: 2, 8, 15 pixels
def test_the_seam_fades_over_half_a_token_of_the_picture(size, half):
    model, picture = pipeline("randar"), noise_picture(size[1], size[0])
    mask = as_mask((size[0] // 2, 0, size[0], size[1] // 2), size[::-1])
    faded, wanted, hard = (
        np.asarray(model.inpaint(picture, mask, framing=Framing("whole", feather=feather))[0])
        for feather in (None, half, 0)
    )
    assert (faded == wanted).all()
    assert (faded != hard).any()


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
    picture = to_pil(model.decode(torch.tensor([[0, 1, 2, 3, 4, 5]]))[0])
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
    picture = to_pil(model.decode(torch.tensor([[0, 1, 2, 3, 4, 5]]))[0])
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
    expected = to_pil(model.sample(["dog"], seed=3)[0])
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
    expected = to_pil(model.sample(["dog"], how)[0])
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
