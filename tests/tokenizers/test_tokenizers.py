import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from randfeat import weights
from randfeat.tokenizers import TOKENIZERS, VQ8, VQ16, LlamaGenVQ, PatchTokenizer, create, name_of
from randfeat.tokenizers.base import nearest
from randfeat.tokenizers.llamagen_vq import convolve_doubled
from randfeat.tokenizers.vq import AT_ONCE


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


@pytest.mark.parametrize(("scale", "offset"), [(255, 0), (1, -0.5), (float("nan"), 0)])
def test_values_outside_of_0_to_1_are_refused(scale, offset):
    with pytest.raises(ValueError, match=r"image values must lie in \[0, 1\], got .*: divide them by"):
        PatchTokenizer.fit(torch.rand(4, 1, 4, 4) * scale + offset, 7, 2)


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


@pytest.mark.parametrize("name", TOKENIZERS)
def test_config_makes_the_same_tokenizer(name):
    small = dict(vocab_size=9, code_dim=4, width=32, multipliers=[1, 1], num_res_blocks=1)
    tokenizer = fitted(3)[0] if name == "patch" else create(name, **small)
    images = torch.rand(2, 3, 4, 6)
    again = create(name_of(tokenizer), **json.loads(json.dumps(tokenizer.config)))
    again.load_state_dict(tokenizer.state_dict())
    assert again.config == tokenizer.config
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
    with pytest.raises(ValueError, match="unknown tokenizer 'vq', expected one of llamagen_vq, maskgit_vq, patch"):
        create("vq")


# nearest codes ----------------------------------------------------------------------------------------------


@given(
    st.integers(0, 9), st.integers(1, 7), st.integers(1, 4), st.sampled_from([1, 5, 14, 1 << 24]), st.integers(0, 99)
)
def test_the_nearest_code_however_the_vectors_are_cut(vectors, codes, channels, at_once, seed):
    generator = torch.Generator().manual_seed(seed)
    x, codebook = (torch.randn(n, channels, generator=generator) for n in (vectors, codes))
    expected = torch.cdist(x.double(), codebook.double()).argmin(1)
    assert torch.equal(nearest(x, codebook, at_once), expected)


def test_distances_are_never_all_in_memory(monkeypatch):
    largest, argmin = [], torch.Tensor.argmin
    monkeypatch.setattr(torch.Tensor, "argmin", lambda x, dim: largest.append(x.numel()) or argmin(x, dim))
    nearest(torch.randn(1000, 2), torch.randn(50, 2), at_once=5000)
    assert largest == [5000] * 10


# convolutional tokenizers -----------------------------------------------------------------------------------

CONVOLUTIONAL = sorted(set(TOKENIZERS) - {"patch"})


@pytest.fixture(params=CONVOLUTIONAL)
def vq(request):
    """Small, of 4 pixels a token, with widths that change, and with a codebook that its latents reach."""
    tokenizer = create(request.param, vocab_size=40, code_dim=6, width=32, multipliers=(1, 2, 1), num_res_blocks=1)
    tokenizer.quantize.embedding.weight.data *= 0.3
    return tokenizer.eval().requires_grad_(False)


def test_any_size_that_the_stride_divides(vq):
    for height, width in ((4, 4), (8, 12), (20, 4)):
        images = torch.rand(2, 3, height, width)
        tokens = vq.encode(images)
        assert tokens.shape == (2, height // 4, width // 4)
        assert tokens.dtype == torch.int64
        decoded = vq.decode(tokens)
        assert decoded.shape == images.shape
        assert (decoded.min() >= 0) & (decoded.max() <= 1)
    with pytest.raises(ValueError, match="divisible by 4, got 8 x 6"):
        vq.encode(torch.rand(1, 3, 8, 6))


def test_tokens_are_the_nearest_codes_and_codes_are_looked_up(vq):
    images = torch.rand(3, 3, 16, 8)
    tokens, latents = vq.encode(images), vq.latents(images)
    codebook = vq.quantize.embedding.weight
    if type(vq) is LlamaGenVQ:  # compares directions
        codebook, latents = (x / x.norm(dim=d, keepdim=True) for x, d in ((codebook, 1), (latents, 1)))
    distances = (latents[:, None] - codebook[None, :, :, None, None]).norm(dim=2)  # (B, V, h, w)
    torch.testing.assert_close(distances.gather(1, tokens[:, None])[:, 0], distances.min(1).values)
    assert len(tokens.unique()) > 1
    torch.testing.assert_close(vq.codes(tokens), codebook[tokens].permute(0, 3, 1, 2))


def test_an_image_does_not_depend_on_its_batch(vq):
    images = torch.rand(3, 3, 12, 8)
    tokens = vq.encode(images)
    assert torch.equal(vq.encode(images[1:2]), tokens[1:2])
    torch.testing.assert_close(vq.decode(tokens[1:2]), vq.decode(tokens)[1:2], atol=1e-5, rtol=1e-4)


def test_memory_does_not_grow_with_the_batch(vq, monkeypatch):
    images, calls, latents, pixels = torch.rand(5, 3, 12, 8), [], vq.latents, vq.pixels
    tokens = vq.encode(images)
    decoded = vq.decode(tokens)
    monkeypatch.setitem(AT_ONCE, "cpu", 2 * 12 * 8 + 1)  # two images at a time
    monkeypatch.setattr(vq, "latents", lambda part: calls.append(len(part)) or latents(part))
    monkeypatch.setattr(vq, "pixels", lambda part: calls.append(len(part)) or pixels(part))
    assert torch.equal(vq.encode(images), tokens)
    torch.testing.assert_close(vq.decode(tokens), decoded, atol=1e-5, rtol=1e-4)
    assert calls == [2, 2, 1, 2, 2, 1]


def test_half_precision_is_for_pixels_alone(vq):
    """Under autocast tokens stay as they are; pixels come out in single precision, a little off."""
    images = torch.rand(2, 3, 16, 8, generator=torch.Generator().manual_seed(0))
    tokens = vq.encode(images)
    exact = vq.decode(tokens)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(vq.encode(images), tokens)
        rough = vq.decode(tokens)
    assert rough.dtype == torch.float32
    assert not torch.equal(rough, exact)
    assert (rough - exact).abs().mean() < 0.02


def test_official_files_may_hold_a_record_of_training_and_no_more(vq):
    official = weights.to_official(vq)
    assert set(official) == set(vq.state_dict())
    other = create(name_of(vq), **vq.config)
    weights.load_strict(other, weights.from_official(other, official | {name: torch.zeros(9) for name in vq.unused}))
    assert torch.equal(other.encode(torch.ones(1, 3, 8, 8)), vq.encode(torch.ones(1, 3, 8, 8)))
    with pytest.raises(ValueError, match=r"0 missing \(none\), 1 unexpected \(loss.weight\)"):
        weights.from_official(vq, official | {"loss.weight": torch.zeros(1)})
    official.pop("decoder.conv_in.weight")
    with pytest.raises(ValueError, match=r"1 missing \(decoder.conv_in.weight\)"):
        weights.from_official(vq, official)


def test_published_multipliers():
    with torch.device("meta"):
        assert [LlamaGenVQ(multipliers=m).stride for m in (VQ16, VQ8)] == [16, 8]
        with pytest.raises(ValueError, match="divisible by num_groups"):
            LlamaGenVQ(width=48)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 5), (8, 2)])
def test_a_convolution_of_doubled_pixels_is_that_of_the_interpolation(height, width):
    torch.manual_seed(0)
    x = torch.randn(2, 6, height, width, dtype=torch.float64, requires_grad=True)
    conv = torch.nn.Conv2d(6, 4, 3, padding=1).double()
    found, expected = convolve_doubled(x, conv), conv(F.interpolate(x, scale_factor=2))
    torch.testing.assert_close(found, expected)
    weight = torch.randn(expected.shape)
    given = [x, *conv.parameters()]
    for a, b in zip(*(torch.autograd.grad((y * weight).sum(), given) for y in (found, expected)), strict=True):
        torch.testing.assert_close(a, b)
