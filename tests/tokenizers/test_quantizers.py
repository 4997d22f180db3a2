import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from vector_quantize_pytorch import FSQ, LFQ

from randfeat.tokenizers import LlamaGenVQ, base, quantizers
from randfeat.tokenizers.quantizers import Codebook, FiniteScalar, LookupFree, sign_entropy

EVERY = {
    "angle": lambda: Codebook(37, 5, normalised=True),
    "distance": lambda: Codebook(37, 5),
    "fsq": lambda: FiniteScalar([5, 4, 3, 8]),
    "lfq": lambda: LookupFree(7),
}


@pytest.fixture(params=EVERY)
def quantizer(request):
    torch.manual_seed(0)
    made = EVERY[request.param]()
    if request.param == "distance":
        made.embedding.weight.data *= 37  # to the size of latents
    return made


def latents_of(quantizer, images=2, scale=1.0):
    return scale * torch.randn(images, quantizer.code_dim, 6, 4, generator=torch.Generator().manual_seed(1))


def test_training_and_use_agree(quantizer):
    latents = latents_of(quantizer)
    found = quantizer(latents)
    assert found.tokens.shape == (2, 6, 4)
    assert found.tokens.dtype == torch.int64
    assert len(found.tokens.unique()) > 5
    assert torch.equal(quantizer.indices(latents.permute(0, 2, 3, 1)), found.tokens)
    assert torch.equal(quantizer.indices(latents[0, :, 0, 0]), found.tokens[0, 0, 0])
    codes = quantizer.codes(found.tokens)
    assert codes.shape == (2, 6, 4, quantizer.code_dim)
    torch.testing.assert_close(found.codes.permute(0, 2, 3, 1), codes)


def test_codes_of_all_tokens_differ_and_are_their_own_nearest(quantizer):
    tokens = torch.arange(quantizer.vocab_size)
    codes = quantizer.codes(tokens)
    assert len(codes.unique(dim=0)) == quantizer.vocab_size
    if isinstance(quantizer, FiniteScalar):  # its latents are bounded on the way to a code
        levels = torch.tensor(quantizer.levels)
        reach, offset = (levels - 1) * 1.001 / 2, (1 - levels % 2) / 2
        codes = torch.atanh((codes * (levels // 2) + offset) / reach) - torch.atanh(offset / reach)
    assert torch.equal(quantizer.indices(codes), tokens)


def test_gradients_pass_straight_through(quantizer):
    latents = latents_of(quantizer).requires_grad_()
    weight = torch.randn(latents.shape)
    (quantizer(latents).codes * weight).sum().backward()
    by_codes = latents.grad.clone()
    latents.grad = None
    prepared = quantizer.prepared(latents.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    (prepared * weight).sum().backward()
    torch.testing.assert_close(by_codes, latents.grad)
    assert (by_codes != 0).all()


def test_losses_reach_the_latents(quantizer):
    latents = latents_of(quantizer, scale=0.01).requires_grad_()
    losses = quantizer(latents).losses
    expected = {Codebook: {"codebook", "commitment"}, FiniteScalar: set(), LookupFree: {"commitment", "entropy"}}
    assert set(losses) == expected[type(quantizer)]
    assert all(loss.shape == () for loss in losses.values())
    for name in losses:
        (gradient,) = torch.autograd.grad(losses[name], latents, retain_graph=True, allow_unused=True)
        assert (gradient is None) == (name == "codebook")


def test_half_precision_changes_no_token(quantizer):
    latents = latents_of(quantizer).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = quantizer(latents)
    assert found.codes.dtype == torch.float32
    assert torch.equal(found.tokens, quantizer(latents.float()).tokens)
    assert all(loss.dtype == torch.float32 for loss in found.losses.values())


@pytest.mark.parametrize("normalised", [True, False])
def test_losses_of_a_codebook_are_llamagens(normalised):
    torch.manual_seed(3)
    codebook, latents = Codebook(9, 4, normalised), torch.randn(2, 4, 3, 5).double().requires_grad_()
    codebook.double().embedding.weight.data += torch.randn(9, 4)
    x, weight = latents.permute(0, 2, 3, 1).reshape(-1, 4), codebook.embedding.weight
    if normalised:
        x, weight = x / x.norm(dim=1, keepdim=True), weight / weight.norm(dim=1, keepdim=True)
    chosen = weight[torch.cdist(x, weight).argmin(1)]
    losses = codebook(latents).losses
    expected = {
        "codebook": ((chosen - x.detach()) ** 2).mean(),
        "commitment": ((chosen.detach() - x) ** 2).mean(),
    }
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected[name])
        given = [latents, codebook.embedding.weight]
        found, wanted = (
            torch.autograd.grad(term, given, allow_unused=True, retain_graph=True) for term in (loss, expected[name])
        )
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(torch.zeros(1) if a is None else a, torch.zeros(1) if b is None else b)


def test_fresh_codes_are_llamagens():
    torch.testing.assert_close(Codebook(50, 3, normalised=True).embedding.weight.norm(dim=1), torch.ones(50))
    plain = Codebook(50, 3).embedding.weight.detach()
    assert plain.abs().max() <= 1 / 50
    assert plain.std() == pytest.approx(1 / 50 / 3**0.5, rel=0.2)


def test_the_largest_codebook_takes_little_memory(monkeypatch):
    largest, argmin = [], torch.Tensor.argmin
    monkeypatch.setattr(torch.Tensor, "argmin", lambda x, dim: largest.append(x.numel()) or argmin(x, dim))
    codebook, latents = Codebook(65536, 8, normalised=True), torch.randn(1, 8, 32, 16)
    tokens = codebook(latents).tokens
    assert max(largest) <= 1 << 24
    assert len(largest) == 2
    vectors = F.normalize(latents.permute(0, 2, 3, 1).flatten(0, 2), dim=1)
    similar = vectors @ codebook.embedding.weight.T
    torch.testing.assert_close(similar.gather(1, tokens.view(-1, 1))[:, 0], similar.max(1).values)


# finite scalars ---------------------------------------------------------------------------------------------


@given(st.lists(st.integers(3, 9), min_size=1, max_size=5), st.integers(0, 99))
def test_finite_scalars_are_those_of_another_implementation(levels, seed):
    ours, theirs = FiniteScalar(levels), FSQ(levels)
    latents = 2 * torch.randn(2, len(levels), 3, 5, generator=torch.Generator().manual_seed(seed))
    found = ours(latents.requires_grad_())
    codes, tokens = theirs(latents)
    torch.testing.assert_close(found.codes, codes)
    assert torch.equal(found.tokens, tokens.long())
    assert ours.vocab_size == theirs.codebook_size
    everything = torch.arange(ours.vocab_size)
    torch.testing.assert_close(ours.codes(everything), theirs.indices_to_codes(everything))
    weight = torch.randn(codes.shape)
    gradients = [torch.autograd.grad((x * weight).sum(), latents)[0] for x in (found.codes, codes)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("levels", [[8, 8, 8, 5, 5], [16, 16, 16, 16]])
def test_every_level_is_reached(levels):
    quantizer = FiniteScalar(levels)
    for channel, count in enumerate(levels):
        latents = torch.zeros(4001, len(levels))
        latents[:, channel] = torch.linspace(-8, 8, 4001)
        codes = quantizer.codes(quantizer.indices(latents))[:, channel]
        assert len(codes.unique()) == count
        assert (codes.diff() >= 0).all()
        assert codes[0] == -1
        assert codes[-1] == (1 if count % 2 else 1 - 2 / count)
    assert quantizer.vocab_size == math.prod(levels)


# lookup-free ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 5, 8])
def test_lookup_free_is_that_of_another_implementation(channels):
    ours, theirs = LookupFree(channels), LFQ(dim=channels, entropy_loss_weight=1.0, commitment_loss_weight=1.0)
    # small, where the signs are not decided yet
    latents = 0.004 * torch.randn(2, channels, 3, 5, generator=torch.Generator().manual_seed(channels))
    found = ours(latents.requires_grad_())
    (codes, tokens, _), parts = theirs(latents, return_loss_breakdown=True)
    torch.testing.assert_close(found.codes, codes)
    assert torch.equal(found.tokens, tokens.long())
    everything = torch.arange(2**channels)
    assert torch.equal(ours.codes(everything), theirs.indices_to_codes(everything))
    torch.testing.assert_close(found.losses["commitment"], parts.commitment)
    expected = parts.per_sample_entropy - parts.batch_entropy
    assert parts.per_sample_entropy > 0.1
    torch.testing.assert_close(found.losses["entropy"], expected, atol=2e-5, rtol=1e-4)
    gradients = [torch.autograd.grad(loss, latents)[0] for loss in (found.losses["entropy"], expected)]
    torch.testing.assert_close(*gradients, atol=1e-4 * gradients[1].abs().max().item(), rtol=1e-3)


@given(st.integers(1, 7), st.integers(1, 9), st.floats(0.05, 4), st.integers(0, 99))
def test_entropy_of_signs_is_that_over_all_codes(channels, vectors, temperature, seed):
    latents = torch.randn(vectors, channels, generator=torch.Generator().manual_seed(seed)).double()
    codes = LookupFree(channels).codes(torch.arange(2**channels)).double()
    log_p = (-torch.cdist(latents, codes).square() / temperature).log_softmax(1)
    mean = log_p.exp().mean(0).clamp(min=1e-300)
    expected = -(log_p.exp() * log_p).sum(1).mean() + (mean * mean.log()).sum()
    torch.testing.assert_close(sign_entropy(latents, temperature), expected, atol=1e-8, rtol=1e-6)


def test_entropy_is_least_where_all_codes_are_used_and_decided():
    every = LookupFree(6).codes(torch.arange(64))
    assert sign_entropy(every, 0.01).item() == pytest.approx(-math.log(64))
    assert sign_entropy(every[:1].expand(64, -1), 0.01).item() == pytest.approx(0, abs=1e-6)
    assert sign_entropy(torch.zeros(64, 6), 0.01).item() == pytest.approx(0, abs=1e-5)


def test_entropy_of_65536_codes_takes_little_memory():
    """Over all codes it would be 4,096 x 65,536 numbers: a gigabyte, a few times."""
    latents = (0.01 * torch.randn(4096, 16)).requires_grad_()
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
        sign_entropy(latents, 0.01).backward()
    assert max(sizes) <= 4096 * 256
    assert latents.grad.isfinite().all()
    assert latents.grad.abs().sum() > 0


# by name ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keywords", "vocab_size", "code_dim"),
    [
        (dict(), 16384, 8),
        (dict(vocab_size=65536, code_dim=3), 65536, 3),
        (dict(quantizer="fsq", levels=[8, 8, 8, 5, 5]), 12800, 5),
        (dict(quantizer="fsq", levels=(4, 3), vocab_size=12, code_dim=2), 12, 2),
        (dict(quantizer="lfq"), 16384, 14),
        (dict(quantizer="lfq", vocab_size=65536), 65536, 16),
        (dict(quantizer="lfq", code_dim=9), 512, 9),
    ],
)
def test_sizes_follow_from_one_another(keywords, vocab_size, code_dim):
    with torch.device("meta"):
        made = LlamaGenVQ(width=32, multipliers=(1,), num_res_blocks=1, **keywords)
    assert (made.vocab_size, made.quantize.code_dim) == (vocab_size, code_dim)
    assert (made.config["vocab_size"], made.config["code_dim"]) == (vocab_size, code_dim)
    assert made.post_quant_conv.in_channels == code_dim


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(kind="rvq"), "unknown quantizer 'rvq', expected one of vq, fsq, lfq"),
        (dict(kind="fsq"), "levels are given for quantizer fsq and no other, got None for fsq"),
        (dict(kind="vq", levels=[3]), r"levels are given for quantizer fsq and no other, got \[3\] for vq"),
        (dict(kind="fsq", levels=[]), "FSQ needs levels"),
        (dict(kind="fsq", levels=[8, 2]), "each of FSQ's levels must be a whole number from 3, got 2"),
        (dict(kind="fsq", levels=[4, 4], vocab_size=15), "fsq of 2 channels has 16 codes, got vocab_size=15: leave"),
        (dict(kind="fsq", levels=[4, 4], code_dim=8), "fsq of 2 channels has 16 codes, got code_dim=8: leave"),
        (dict(kind="lfq", vocab_size=1000), "lfq of 10 channels has 1,024 codes, got vocab_size=1000: leave"),
        (dict(kind="lfq", code_dim=21), "give a code_dim up to 20"),
        (dict(kind="lfq", normalised=False), "l2_norm is about the codes of quantizer vq"),
        (dict(kind="vq", vocab_size=0), "vocab_size must be a whole number from 1, got 0"),
        (
            dict(kind="vq", code_dim=2.5),
            "code_dim must be a whole number, got 2.5|code_dim must be a whole number from",
        ),
    ],
)
def test_contradictions_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        quantizers.create(**arguments)


@pytest.mark.parametrize("value_range", [(1, 1), (2, 0), (0, float("nan")), (0,), (0, 1, 2), ("0", "1")])
def test_a_value_range_is_two_numbers(value_range):
    with pytest.raises(ValueError, match="a value range is two numbers LOW < HIGH, got"):
        base.checked_range(value_range)
