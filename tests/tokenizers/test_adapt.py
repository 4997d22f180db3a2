import pytest
import torch

from randfeat.tokenizers import LlamaGenVQ, MaskGITVQ, PatchTokenizer, adapted, create, name_of

SMALL = dict(vocab_size=20, code_dim=4, width=8, norm_groups=4, multipliers=(1, 2), num_res_blocks=1, latent_dim=16)


def trained(**changes):
    torch.manual_seed(0)
    made = LlamaGenVQ(**(SMALL | changes))
    for parameter in made.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    return made.eval().requires_grad_(False)


def images(channels, seed=1):
    return torch.rand(2, channels, 8, 12, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("before", "after"), [(3, 1), (3, 4), (1, 3), (3, 13), (4, 2), (2, 2)])
def test_images_of_equal_channels_have_the_tokens_that_they_had(before, after):
    tokenizer, grey = trained(channels=before), images(1)
    made = adapted(tokenizer, channels=after)
    assert made.config == LlamaGenVQ(**(tokenizer.config | {"channels": after})).config
    given, expected = grey.expand(-1, after, -1, -1), grey.expand(-1, before, -1, -1)
    torch.testing.assert_close(made.latents(given), tokenizer.latents(expected))
    assert torch.equal(made.encode(given), tokenizer.encode(expected))
    codes = made.codes(made.encode(given))
    pixels, mean = tokenizer.pixels(codes), tokenizer.pixels(codes).mean(1, keepdim=True)
    added = max(0, after - before)
    wanted = (
        torch.cat([pixels, mean.expand(-1, added, -1, -1)], 1) if after >= before else mean.expand(-1, after, -1, -1)
    )
    torch.testing.assert_close(made.pixels(codes), wanted)


def test_every_channel_is_seen():
    made = adapted(trained(), channels=6)
    x = images(6).requires_grad_()
    made.latents(x).sum().backward()
    assert (x.grad.abs().sum((0, 2, 3)) > 0).all()


def test_without_changes_it_is_a_copy():
    tokenizer = trained()
    made = adapted(tokenizer)
    assert torch.equal(made.encode(images(3)), tokenizer.encode(images(3)))
    made.encoder.conv_in.weight.data += 1
    made.quantize.embedding.weight.data += 1
    again = trained()
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in tokenizer.state_dict().items())


@pytest.mark.parametrize("normalised", [True, False])
def test_a_larger_codebook_has_all_codes_and_near_copies(normalised):
    tokenizer = trained(l2_norm=normalised)
    made = adapted(tokenizer, vocab_size=50)
    before, after = tokenizer.quantize.codes(torch.arange(20)), made.quantize.codes(torch.arange(50)).detach()
    torch.testing.assert_close(after[:20], before)
    assert len(after.unique(dim=0)) == 50
    apart = (after[20:] - before[torch.arange(20, 50) % 20]).norm(dim=1) / before[torch.arange(20, 50) % 20].norm(dim=1)
    assert apart.min() > 0
    assert apart.max() < 0.2
    assert torch.equal(adapted(tokenizer, vocab_size=50).quantize.embedding.weight, made.quantize.embedding.weight)


def test_a_smaller_codebook_has_the_first_codes():
    tokenizer = trained()
    made = adapted(tokenizer, vocab_size=7)
    torch.testing.assert_close(made.quantize.codes(torch.arange(7)), tokenizer.quantize.codes(torch.arange(7)))


def test_without_the_norm_codes_stay_where_they_were():
    tokenizer = trained()
    made = adapted(tokenizer, l2_norm=False)
    torch.testing.assert_close(made.quantize.codes(torch.arange(20)), tokenizer.quantize.codes(torch.arange(20)))


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        (dict(quantizer="fsq", levels=[5, 4, 3]), False),
        (dict(quantizer="fsq", levels=[5, 4, 3, 3]), True),
        (dict(quantizer="lfq", vocab_size=64), False),
        (dict(code_dim=5), False),
    ],
)
def test_another_quantiser_starts_afresh_behind_the_same_network(changes, kept):
    tokenizer = trained()
    made = adapted(tokenizer, **changes)
    assert torch.equal(made.encoder(images(3)), tokenizer.encoder(images(3)))
    assert torch.equal(made.quant_conv.weight, tokenizer.quant_conv.weight) == kept
    assert create(name_of(made), **made.config).quantize.code_dim == made.quantize.code_dim
    assert made.encode(images(3)).max() < made.vocab_size


def test_a_range_of_values_comes_and_goes():
    made = adapted(trained(), channels=1, value_range=(0, 65535))
    assert made.value_range == (0, 65535)
    assert adapted(made).value_range == (0, 65535)
    assert adapted(made, value_range=None).value_range is None


@pytest.mark.parametrize(
    ("tokenizer", "changes", "message"),
    [
        (
            PatchTokenizer(5, 2, 3),
            {},
            "a PatchTokenizer cannot be trained on: give a LlamaGenVQ, such as llamagen-vq16",
        ),
        (
            MaskGITVQ(5, 4, 32, (1,), 1),
            {},
            "a MaskGITVQ cannot be trained on: give a LlamaGenVQ, such as llamagen-vq16",
        ),
        (trained(), dict(width=64, latent_dim=1), "latent_dim, width cannot change in trained weights, only channels,"),
        (trained(), dict(channels=0), "channels must be a whole number from 1, got 0"),
        (trained(), dict(quantizer="lfq", vocab_size=100), "lfq of 7 channels has 128 codes, got vocab_size=100"),
    ],
)
def test_what_cannot_be_adapted_is_refused(tokenizer, changes, message):
    with pytest.raises(ValueError, match=message):
        adapted(tokenizer, **changes)
