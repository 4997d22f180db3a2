"""LlamaGen's official code beside ours: tokens, pixels, losses and gradients, with codes compared by angle or not.

`recorded/llamagen_vq.npz` holds what tokenizer/tokenizer_image/vq_model.py of FoundationVision/LlamaGen at commit
ce98ec41 computed in training mode: VQModel(codebook_size=24, codebook_embed_dim=4, commit_loss_beta=1, multipliers
1, 2, 1, z_channels=32) with encoder and decoder of ch=32 and one residual block, for 3 channels and for 1, with the
weights of `official.wave`. The gradients are those of mean(pixels^2) + codebook loss + commitment loss.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from official import wave

from randfeat import load_tokenizer, weights
from randfeat.tokenizers import LlamaGenVQ
from randfeat.weights import checkpoints

RECORDED = np.load(Path(__file__).parent / "recorded" / "llamagen_vq.npz")
EVERY = [(l2_norm, channels) for l2_norm in (True, False) for channels in (3, 1)]


def recorded(l2_norm, channels, name):
    return torch.from_numpy(RECORDED[f"{'normalised' if l2_norm else 'plain'}_{channels}.{name}"])


def build(l2_norm, channels):
    made = LlamaGenVQ(24, 4, 32, (1, 2, 1), 1, 32, channels=channels, l2_norm=l2_norm)
    weights.load_strict(made, {name: wave(name, value.shape) for name, value in made.state_dict().items()})
    return made


def pictures(channels):
    places = torch.arange(2 * channels * 16 * 24, dtype=torch.float64)
    return (0.5 + 0.5 * torch.sin(0.037 * places**1.5)).float().view(2, channels, 16, 24)


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(("l2_norm", "channels"), EVERY)
def test_training_is_that_of_the_official_code(l2_norm, channels):
    tokenizer = build(l2_norm, channels)
    latents = tokenizer.latents(pictures(channels))
    close(latents, recorded(l2_norm, channels, "latents"))
    quantized = tokenizer.quantize(latents)
    assert torch.equal(quantized.tokens, recorded(l2_norm, channels, "tokens").long())
    close(quantized.codes, recorded(l2_norm, channels, "codes"))
    pixels = 2 * tokenizer.pixels(quantized.codes) - 1  # official images are in [-1, 1]
    close(pixels, recorded(l2_norm, channels, "pixels"))
    losses = quantized.losses
    for name in ("codebook", "commitment"):
        close(losses[name].double(), recorded(l2_norm, channels, f"{name}_loss"))
    (pixels.square().mean() + losses["codebook"] + losses["commitment"]).backward()
    close(tokenizer.encoder.conv_in.weight.grad, recorded(l2_norm, channels, "conv_in_gradient"))
    close(tokenizer.quantize.embedding.weight.grad, recorded(l2_norm, channels, "embedding_gradient"))


@pytest.mark.parametrize(("l2_norm", "channels"), EVERY)
@pytest.mark.parametrize("name", ["vq.pt", "vq.safetensors"])
def test_a_tokenizer_written_as_an_official_file_opens_as_llamagens_own(tmp_path, name, l2_norm, channels):
    checkpoints.write_official(tmp_path / name, build(l2_norm, channels))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    opened = load_tokenizer(tmp_path / name, l2_norm=l2_norm)
    assert opened.config == build(l2_norm, channels).config
    images = pictures(channels)
    tokens = recorded(l2_norm, channels, "tokens").long()
    assert torch.equal(opened.encode(images), tokens)
    pixels = recorded(l2_norm, channels, "pixels")
    close(2 * opened.decode(tokens) - 1, pixels.clamp(-1, 1))


def test_official_files_have_the_official_names(tmp_path):
    """The official code loads strictly, with a record of used codes."""
    tokenizer = build(True, 3)
    checkpoints.write_official(tmp_path / "vq.pt", tokenizer)
    written = torch.load(tmp_path / "vq.pt", weights_only=True)
    assert set(written) == {"model"}
    shapes = {name: tuple(value.shape) for name, value in written["model"].items()}
    assert shapes.pop("quantize.codebook_used") == (65536,)
    assert shapes == {name: tuple(value.shape) for name, value in tokenizer.state_dict().items()}
