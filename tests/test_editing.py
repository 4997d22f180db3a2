import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from randfeat.editing import complete, paste, token_mask
from randfeat.sampling import Sampling

MASKS = arrays(bool, (6, 4)).map(torch.from_numpy)


@given(MASKS, st.sampled_from([1, 2]))
def test_a_token_with_one_masked_pixel_is_masked(mask, stride):
    tokens = token_mask(mask, stride)
    assert tokens.shape == (6 // stride, 4 // stride)
    for row in range(6 // stride):
        for column in range(4 // stride):
            pixels = mask[row * stride : (row + 1) * stride, column * stride : (column + 1) * stride]
            assert tokens[row, column] == pixels.any()


@given(MASKS)
def test_pasting_keeps_every_other_pixel(mask):
    original, made = torch.rand(2, 3, 6, 4), torch.rand(2, 3, 6, 4)
    pasted = paste(original, made, mask)
    assert torch.equal(pasted[:, :, mask], made[:, :, mask])
    assert torch.equal(pasted[:, :, ~mask], original[:, :, ~mask])


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
