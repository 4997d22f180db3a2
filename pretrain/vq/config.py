"""Recipes of tokenizer training: network, quantiser, images and losses, read from the YAML files in `configs/`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from randfeat.tokenizers import VQ8, VQ16, LlamaGenVQ
from randfeat.tokenizers.llamagen_vq import AttentionBlock, ResidualBlock

from ..config import OptimConfig, RuntimeConfig, check_range, read_config

LAST_LAYER: dict[type[nn.Module], str] = {ResidualBlock: "conv2", AttentionBlock: "proj_out"}  # of residual branches
MULTIPLIERS: dict[int, tuple[int, ...]] = {4: (1, 2, 4), 8: VQ8, 16: VQ16}  # of the width, by stride


@dataclass(frozen=True)
class NetworkConfig:
    """Size of the network, LlamaGen's; the defaults are those of its published VQ-16.

    stride: pixels per token, in each direction: 4, 8 or 16. multipliers: of the width, one for each level, of which
        each halves the resolution; by default LlamaGen's for the stride.
    width, num_res_blocks, latent_dim, norm_groups: see `LlamaGenVQ`.
    """

    stride: int = 16
    width: int = 128
    multipliers: tuple[int, ...] | None = None
    num_res_blocks: int = 2
    latent_dim: int = 256
    norm_groups: int = 32

    def __post_init__(self) -> None:
        if self.stride not in MULTIPLIERS:
            raise ValueError(f"stride must be 4, 8 or 16 pixels per token, got {self.stride!r}")
        if self.multipliers is not None and 2 ** (len(self.multipliers) - 1) != self.stride:
            levels = self.stride.bit_length()
            raise ValueError(f"a stride of {self.stride} has {levels} levels, got {len(self.multipliers)} multipliers")

    @property
    def levels(self) -> tuple[int, ...]:
        """Multipliers of the width, those of the stride where the recipe has none."""
        return tuple(self.multipliers or MULTIPLIERS[self.stride])


@dataclass(frozen=True)
class QuantizerConfig:
    """Quantiser between encoder and decoder.

    kind: `vq`, a learned codebook; `fsq`, finite scalar quantisation (arXiv 2309.15505); `lfq`, lookup-free
        quantisation (arXiv 2310.05737).
    vocab_size: codes, at most 65,536; for lfq a power of 2, for fsq the product of `levels`.
    code_dim: channels of a code of vq. l2_norm: compare its codes by angle, as LlamaGen does, or by distance.
    levels: values of each channel of fsq.
    codebook_weight, commitment_weight, entropy_weight: of the quantiser's own losses, where it has them.
    start: step from which latents are replaced by codes, those of vq being drawn from the latents of that step; before
        it encoder and decoder learn by themselves, which makes them good within fewer steps.
    revive_after: steps without use after which a code of vq is moved to a latent of the current batch; 0 for never.
    """

    kind: Literal["vq", "fsq", "lfq"] = "vq"
    vocab_size: int = 16384
    code_dim: int = 8
    l2_norm: bool = True
    levels: tuple[int, ...] | None = None
    codebook_weight: float = 1.0
    commitment_weight: float = 0.25
    entropy_weight: float = 0.1
    start: int = 0
    revive_after: int = 200

    def __post_init__(self) -> None:
        if self.kind not in ("vq", "fsq", "lfq"):
            raise ValueError(f"quantizer.kind must be vq, fsq or lfq, got {self.kind!r}")
        if (self.kind == "fsq") != (self.levels is not None):
            raise ValueError("quantizer.levels belongs to kind fsq: give both, such as levels [8, 5, 5, 5], or neither")
        if self.levels is not None and math.prod(self.levels) != self.vocab_size:
            raise ValueError(
                f"levels {list(self.levels)} make {math.prod(self.levels)} codes, and quantizer.vocab_size is "
                f"{self.vocab_size}: change one of them"
            )
        check_range(self, "vocab_size", 2, 1 << 16)
        for name in ("codebook_weight", "commitment_weight", "entropy_weight", "start", "revive_after"):
            check_range(self, name, 0, math.inf)


@dataclass(frozen=True)
class ImagesConfig:
    """Form in which images are shown to the tokenizer.

    size: height and width in pixels, divisible by the stride.
    channels: 1 (grey) or 3 (colour), or any number for images with a `value_range`; None: those of the images.
    value_range: the values that become 0 and 1, for images that are no pictures of 8 bits (see `Tokenizer`); None for
        pictures, or where integers say their range by their type.
    canvas: factor by which the centre crop is larger than `size`; what is shown is cut out of it at a random place.
    shift: pixels by which a crop may also lie beyond the canvas, whose border pixels are repeated there.
    flip: mirror half of the images.
    """

    size: tuple[int, int] = (256, 256)
    channels: int | None = None
    value_range: tuple[float, float] | None = None
    canvas: float = 1.1
    shift: int = 0
    flip: bool = True

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise ValueError(f"images.size must be height and width in pixels, got {list(self.size)}")
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            raise ValueError(f"images.value_range must be two numbers, the smaller first, got {list(self.value_range)}")
        if self.channels is not None:
            check_range(self, "channels", 1, math.inf)
        check_range(self, "canvas", 1, 4)
        check_range(self, "shift", 0, min(self.size))

    @property
    def canvas_size(self) -> tuple[int, int]:
        """Height and width of the canvas in pixels."""
        return round(self.size[0] * self.canvas), round(self.size[1] * self.canvas)


@dataclass(frozen=True)
class PerceptualConfig:
    """Perceptual loss: distance between features of a network of timm, see `losses.Perceptual`.

    network: name in timm, or NAME@FILE; None for no such loss. lpips: file of the official linear layers of LPIPS, for
    `vgg16`.
    """

    network: str | None = None
    weight: float = 1.0
    lpips: str | None = None

    def __post_init__(self) -> None:
        check_range(self, "weight", 0, math.inf)
        if self.lpips is not None and self.network is None:
            raise ValueError("loss.perceptual.lpips needs loss.perceptual.network: the vgg16 that it was fitted to")


@dataclass(frozen=True)
class GANConfig:
    """Adversarial loss of a PatchGAN discriminator with hinge loss (arXiv 1611.07004, 2012.09841).

    weight: of the loss; 0 for none. start: the step from which discriminator and loss take part.
    learning_rate: of the discriminator, under the schedule of the training; None for that of the tokenizer.
    width, layers: of the discriminator.
    adaptive: multiply the weight by the ratio of the gradients at the decoder's last layer (arXiv 2012.09841, eq. 7).
    """

    weight: float = 0.0
    start: int = 20000
    learning_rate: float | None = None
    width: int = 64
    layers: int = 3
    adaptive: bool = False

    def __post_init__(self) -> None:
        check_range(self, "weight", 0, math.inf)
        check_range(self, "start", 0, math.inf)


@dataclass(frozen=True)
class LossConfig:
    """Losses of reconstruction; images are compared in [-1, 1], as LlamaGen does.

    l1, l2: weights of the mean absolute and the mean squared error.
    equivariance: share of the images whose latents are moved by a part of a token before they are quantised, and which
        are to become the equally moved image (after arXiv 2502.09509).
    """

    l1: float = 0.0
    l2: float = 1.0
    perceptual: PerceptualConfig = field(default_factory=PerceptualConfig)
    gan: GANConfig = field(default_factory=GANConfig)
    equivariance: float = 0.0

    def __post_init__(self) -> None:
        check_range(self, "l1", 0, math.inf)
        check_range(self, "l2", 0, math.inf)
        check_range(self, "equivariance", 0, 1)
        if not self.l1 + self.l2:
            raise ValueError("loss.l1 and loss.l2 are both 0: give one of them a weight")


@dataclass(frozen=True)
class MachineConfig:
    """Use of the machine, see `RuntimeConfig`; a tokenizer is trained by DDP and not compiled."""

    precision: Literal["float32", "bfloat16"] = "float32"
    micro_batch: int = 0
    save_every: int = 1000
    keep: int = 2

    def __post_init__(self) -> None:
        self.runtime()  # checks the values

    def runtime(self) -> RuntimeConfig:
        """Return the same settings as the training loop takes them."""
        return RuntimeConfig(
            precision=self.precision, micro_batch=self.micro_batch, save_every=self.save_every, keep=self.keep
        )


@dataclass(frozen=True)
class TokenizerConfig:
    """Recipe of a tokenizer's training."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    quantizer: QuantizerConfig = field(default_factory=QuantizerConfig)
    images: ImagesConfig = field(default_factory=ImagesConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    training: OptimConfig = field(default_factory=OptimConfig)
    running: MachineConfig = field(default_factory=MachineConfig)

    def __post_init__(self) -> None:
        stride, (height, width) = self.network.stride, self.images.size
        if height % stride or width % stride:
            raise ValueError(f"images of {height} x {width} pixels are not divisible by the stride of {stride}")

    def build(self, channels: int, value_range: tuple[float, float] | None) -> LlamaGenVQ:
        """Return a tokenizer with fresh weights, a function of the recipe's seed."""
        quantizer, network = self.quantizer, self.network
        own: dict[str, Any] = {"quantizer": quantizer.kind}
        if quantizer.kind == "vq":
            own |= {"code_dim": quantizer.code_dim, "l2_norm": quantizer.l2_norm}
        if quantizer.levels is not None:
            own["levels"] = quantizer.levels
        with torch.random.fork_rng():
            torch.manual_seed(self.training.seed)
            made = LlamaGenVQ(
                vocab_size=quantizer.vocab_size,
                width=network.width,
                multipliers=network.levels,
                num_res_blocks=network.num_res_blocks,
                latent_dim=network.latent_dim,
                norm_groups=network.norm_groups,
                channels=channels,
                value_range=value_range,
                **own,
            )
        # residual branches that add nothing yet leave convolutions in a row, which learn within fewer steps
        for block in made.modules():
            last = LAST_LAYER.get(type(block))
            if last is not None:
                for parameter in block.get_submodule(last).parameters():
                    nn.init.zeros_(parameter)
        return made


def read_tokenizer_recipe(name: str | Path, changes: Sequence[str] = ()) -> TokenizerConfig:
    """Return a recipe of a tokenizer, as `read_recipe` does."""
    return read_config(TokenizerConfig, name, changes)
