import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from randfeat.tokenizers import PatchTokenizer, create, name_of


def fitted(channels=1, patch=2, vocab_size=6, images=12, size=(4, 6)):
    pictures = torch.rand(images, channels, *size, generator=torch.Generator().manual_seed(channels))
    return PatchTokenizer.fit(pictures, vocab_size, patch), pictures


def patches(images, patch):
    """(B, h * w, channels * patch * patch), by loops."""
    _, _, height, width = images.shape
    corners = [(y, x) for y in range(0, height, patch) for x in range(0, width, patch)]
    return torch.stack([images[:, :, y : y + patch, x : x + patch].flatten(1) for y, x in corners], 1)


@pytest.mark.parametrize(("channels", "patch"), [(1, 2), (3, 2), (3, 1), (1, 4)])
def test_every_patch_gets_the_nearest_code(channels, patch):
    tokenizer, images = fitted(channels, patch, size=(4, 8))
    tokens = tokenizer.encode(images)
    assert tokens.shape == (12, 4 // patch, 8 // patch)
    assert tokens.dtype == torch.int64
    distances = torch.cdist(patches(images, patch).double(), tokenizer.codebook.double())
    torch.testing.assert_close(
        distances.gather(2, tokens.flatten(1)[..., None])[..., 0], distances.min(2).values, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize(("channels", "patch"), [(1, 2), (3, 2), (3, 1), (1, 4)])
def test_decoding_lays_the_codes_out(channels, patch):
    tokenizer, _ = fitted(channels, patch, size=(4, 8))
    tokens = torch.arange(12).reshape(2, 2, 3) % tokenizer.vocab_size
    images = tokenizer.decode(tokens)
    assert images.shape == (2, channels, 2 * patch, 3 * patch)
    torch.testing.assert_close(patches(images, patch), tokenizer.codebook[tokens].flatten(1, 2))
    assert torch.equal(tokenizer.encode(images), tokens)


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(0, 99))
def test_what_is_made_of_codes_comes_back(patch, height, width, seed):
    generator = torch.Generator().manual_seed(seed)
    tokenizer = PatchTokenizer(5, patch, 3)
    tokenizer.codebook.copy_(torch.rand(tokenizer.codebook.shape, generator=generator))
    tokens = torch.randint(5, (2, height, width), generator=generator)
    assert torch.equal(tokenizer.encode(tokenizer.decode(tokens)), tokens)


def test_images_of_few_distinct_patches_come_back_exactly():
    images = torch.tensor([[0.0, 1.0, 0.25, 1.0], [1.0, 0.0, 0.0, 0.25]]).view(1, 1, 2, 4)
    tokenizer = PatchTokenizer.fit(images, vocab_size=50, patch=1)
    assert tokenizer.vocab_size == 3
    assert tokenizer.config == {"vocab_size": 3, "patch": 1, "channels": 1}
    assert torch.equal(tokenizer.decode(tokenizer.encode(images)), images)


def test_more_codes_fit_better():
    _, images = fitted()
    errors = []
    for vocab_size in (1, 4, 16):
        tokenizer = PatchTokenizer.fit(images, vocab_size, 2)
        errors.append((tokenizer.decode(tokenizer.encode(images)) - images).square().mean().item())
    assert errors == sorted(errors, reverse=True)
    assert errors[0] == pytest.approx(patches(images, 2).var((0, 1), correction=0).mean().item())  # one code: the mean


def test_fitting_is_a_function_of_images_and_seed():
    state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002  that nobody touches it
    first, images = fitted(vocab_size=9)
    assert torch.equal(first.codebook, PatchTokenizer.fit(images, 9, 2).codebook)
    assert not torch.equal(first.codebook, PatchTokenizer.fit(images, 9, 2, seed=1).codebook)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert (np.random.get_state()[1] == state[1]).all()  # noqa: NPY002


def test_large_batches_are_cut_into_pieces():
    tokenizer, _ = fitted(patch=1)
    image = torch.rand(1, 1, 160, 160)  # more patches than one piece holds
    assert torch.equal(tokenizer.encode(image)[:, :80], tokenizer.encode(image[:, :, :80]))
    assert torch.equal(tokenizer.encode(image)[:, 80:], tokenizer.encode(image[:, :, 80:]))


def test_config_makes_the_same_tokenizer():
    tokenizer, images = fitted(3)
    again = create(name_of(tokenizer), **tokenizer.config)
    again.load_state_dict(tokenizer.state_dict())
    assert torch.equal(again.encode(images), tokenizer.encode(images))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(1, 3, 4, 4), r"expected images \(B, 1, H, W\), got \(1, 3, 4, 4\)"),
        (torch.zeros(1, 4, 4), r"expected images \(B, 1, H, W\), got \(1, 4, 4\)"),
        (torch.zeros(1, 1, 4, 5), "divisible by 2, got 4 x 5: resize or crop"),
        (torch.zeros(1, 1, 4, 4, dtype=torch.uint8), "got torch.uint8: divide by 255"),
    ],
)
def test_wrong_images_are_refused(images, message):
    tokenizer, _ = fitted()
    with pytest.raises(ValueError, match=message):
        tokenizer.encode(images)


def test_an_unknown_tokenizer_is_refused():
    with pytest.raises(ValueError, match="unknown tokenizer 'vq', expected one of patch"):
        create("vq")
