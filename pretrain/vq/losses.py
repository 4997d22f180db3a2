"""Losses of tokenizers beside L1 and L2: distances between features of a network, and those of a discriminator.

All are means over a batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from randfeat.utils import distributed
from randfeat.weights import checkpoints

# of the scaling layer of LPIPS, which takes images in [-1, 1]
LPIPS_SHIFT, LPIPS_SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
LPIPS_STAGES = 5  # of vgg16, which has one more in timm: the last pooling
LARGEST_WEIGHT = 1e4  # of `adaptive_weight`
SMALLEST_SIDE = 3  # of the map that the last two convolutions of a discriminator take


class Perceptual(nn.Module):
    """Distance between two images in the features of a network of timm, as in LPIPS (arXiv 1801.03924, eq. 1).

    Features of each stage are divided by their length at each position; squared differences are summed over channels,
    averaged over positions and summed over stages. The network is frozen and in evaluation mode. It belongs to neither
    parameters nor buffers of this module, so it is in no checkpoint; `to` moves it all the same.

    Args:
        network: name in timm, or NAME@FILE for weights of a file.
        stages: numbered from 1, or from the end; by default all.
        lpips: file of the official linear layers of LPIPS, which weigh the channels, for `vgg16`; the distance is then
            LPIPS itself.
        fresh: random weights of the network in place of any.

    Raises a FileNotFoundError, ConnectionError or ValueError of one sentence.
    """

    def __init__(
        self, network: str, stages: Sequence[int] = (), lpips: str | Path | None = None, *, fresh: bool = False
    ) -> None:
        super().__init__()
        from randfeat.features.timm_encoder import open_timm  # timm takes seconds to import

        self.name = network
        model = open_timm(network, [], "cpu", torch.float32, fresh).model
        if lpips is not None and (model.pretrained_cfg["architecture"] != "vgg16" or stages):
            raise ValueError("LPIPS is of all stages of vgg16: take vgg16 without stages, or leave lpips out")
        self._frozen = (_Features(model, stages, None if lpips is None else Path(lpips)),)  # a tuple is not registered
        self._fitting: set[tuple[int, int]] = set()

    def _apply(self, fn: Any, recurse: bool = True) -> Perceptual:
        super()._apply(fn, recurse)
        self._frozen[0]._apply(fn, recurse)
        return self

    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        """Return the mean distance, (), of images from others, both (B, C, H, W) in [0, 1].

        Where C is not the network's number of channels, each channel is read by itself as a grey image.
        """
        return self.distances(images, others).mean()

    def distances(self, images: Tensor, others: Tensor) -> Tensor:
        """Return the distance of each image from the other at its place, (B,). See `forward`."""
        features = self._frozen[0]
        self.check((images.shape[2], images.shape[3]))
        total = images.new_zeros(())
        for weight, *pair in zip(features.weights, features(images), features(others), strict=True):
            one, other = (F.normalize(part.float(), dim=1, eps=1e-10) for part in pair)
            squares = (one - other).square()
            total = total + (squares if weight is None else squares * weight).sum(1).mean((1, 2))
        return total.unflatten(0, (len(images), -1)).mean(1)  # over channels that were read by themselves

    @torch.no_grad()
    def check(self, size: tuple[int, int]) -> None:
        """Raise a ValueError unless the network takes images of this height and width."""
        if size in self._fitting:
            return
        features = self._frozen[0]
        try:
            fits = all(part.numel() for part in features(features.mean.new_zeros(1, features.channels, *size)))
        except torch.OutOfMemoryError:
            raise
        except (AssertionError, RuntimeError, ValueError):  # each network of timm has its own
            fits = False
        if not fits:
            raise ValueError(
                f"{self.name} takes no images of {size[0]} x {size[1]} pixels at these stages: "
                "choose another network or earlier stages for the perceptual loss"
            )
        self._fitting.add(size)


class _Features(nn.Module):
    """Stages of a frozen network, its normalisation, and weights of the channels (C, 1, 1), or None, of each stage."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: Any, stages: Sequence[int], lpips: Path | None) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        config = model.pretrained_cfg
        if not hasattr(model, "forward_intermediates"):
            raise ValueError(f"timm reads no stages of {config['architecture']}: choose another network")
        self.channels, count = int(config["input_size"][0]), len(model.feature_info)
        if any(not 1 <= abs(stage) <= count for stage in stages):
            raise ValueError(f"stages of {config['architecture']} are numbered 1 to {count}, got {list(stages)}")
        mean, std = torch.tensor(config["mean"]), torch.tensor(config["std"])
        self.indices = sorted({stage - 1 if stage > 0 else count + stage for stage in stages}) or [*range(count)]
        linear: list[Tensor | None] = [None] * len(self.indices)
        if lpips is not None:
            self.indices = [*range(LPIPS_STAGES)]
            mean, std = (torch.tensor(LPIPS_SHIFT) + 1) / 2, torch.tensor(LPIPS_SCALE) / 2
            linear = [*_linear_layers(lpips, [info["num_chs"] for info in model.feature_info[:LPIPS_STAGES]])]
        self.indices = model.prune_intermediate_layers(self.indices, prune_head=True)  # of vgg16, three quarters
        self.register_buffer("mean", mean[:, None, None])
        self.register_buffer("std", std[:, None, None])
        for i, weight in enumerate(linear):
            self.register_buffer(f"weight{i}", weight)

    @property
    def weights(self) -> list[Tensor | None]:
        return [getattr(self, f"weight{i}") for i in range(len(self.indices))]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the maps (b, C, h, w) of the stages; b is B, or B times the channels that are read by themselves."""
        if images.shape[1] != self.channels:
            images = images.flatten(0, 1)[:, None].expand(-1, self.channels, -1, -1)
        normal = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)  # the faster on a CPU
        return self.model.forward_intermediates(normal, self.indices, stop_early=True, intermediates_only=True)


def _linear_layers(path: Path, widths: Sequence[int]) -> list[Tensor]:
    """Return the weights of the linear layers in an official file of LPIPS, each (C, 1, 1)."""
    state = checkpoints.read(path).state
    found = [state.get(f"lin{i}.model.1.weight") for i in range(len(widths))]
    expected = [(1, width, 1, 1) for width in widths]
    if [None if weight is None else tuple(weight.shape) for weight in found] != expected:
        raise ValueError(f"{path} holds no linear layers of LPIPS for vgg16: give the official file, vgg.pth")
    return [weight[0].float().clone() for weight in found if weight is not None]


class PatchDiscriminator(nn.Module):
    """Discriminator of patches, PatchGAN (arXiv 1611.07004), with group norms in place of batch norms.

    So no image's logits depend on the others in its batch, nor a step on its division over processes.

    Args:
        channels: of the images.
        width: of the first convolution; it doubles in each layer, up to eight times.
        layers: convolutions that halve the resolution.

    Raises a ValueError for a width or a number of layers below 1.
    """

    def __init__(self, channels: int = 3, width: int = 64, layers: int = 3) -> None:
        super().__init__()
        if min(channels, width, layers) < 1:
            raise ValueError(
                f"a discriminator has at least 1 channel, width and layer, got {channels}, {width} and {layers}"
            )
        self.layers = layers
        widths = [width * min(2**i, 8) for i in range(layers + 1)]
        parts: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for i, (before, after) in enumerate(pairwise(widths), 1):
            parts += [
                nn.Conv2d(before, after, 4, 2 if i < layers else 1, 1, bias=False),
                nn.GroupNorm(math.gcd(32, after), after),
                nn.LeakyReLU(0.2),
            ]
        self.main = nn.Sequential(*parts, nn.Conv2d(widths[-1], 1, 4, 1, 1))
        for module in self.main:
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (B, 1, h, w), of each patch to be real, of images (B, channels, H, W) in [0, 1].

        Raises a ValueError for images too small for the layers.
        """
        self.check((images.shape[2], images.shape[3]))
        return self.main(2 * images - 1)

    def check(self, size: tuple[int, int]) -> None:
        """Raise a ValueError unless images of this height and width are large enough for the layers."""
        most = (min(size) // SMALLEST_SIDE).bit_length() - 1
        if self.layers > most:
            raise ValueError(
                f"a discriminator of {self.layers} layers needs {SMALLEST_SIDE * 2**self.layers} pixels a side, and "
                f"images are {size[0]} x {size[1]}: "
                + (f"take {most} or fewer layers" if most > 0 else "take larger images, or no discriminator")
            )


def hinge_discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Return the hinge loss of a discriminator, (), half of each kind (arXiv 1705.02894)."""
    return (F.relu(1 - real_logits.float()).mean() + F.relu(1 + fake_logits.float()).mean()) / 2


def hinge_generator_loss(fake_logits: Tensor) -> Tensor:
    """Return the loss of what made the images that got these logits, (): their mean, negated."""
    return -fake_logits.float().mean()


def discriminator_loss(discriminator: nn.Module, images: Tensor, reconstructed: Tensor) -> Tensor:
    """Return the hinge loss of a discriminator, (), with gradients to its parameters alone."""
    return hinge_discriminator_loss(discriminator(images.detach()), discriminator(reconstructed.detach()))


def generator_loss(discriminator: nn.Module, reconstructed: Tensor) -> Tensor:
    """Return the adversarial loss of reconstructed images, (), with gradients to them and none to the discriminator.

    So its sum with `discriminator_loss` can go through one backward pass and trains each side by its own loss.
    """
    fixed = {name: parameter.detach() for name, parameter in discriminator.named_parameters()}
    return hinge_generator_loss(functional_call(discriminator, fixed, (reconstructed,)))


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, last_layer: Tensor) -> Tensor:
    """Return the weight of the adversarial loss, (), detached, at most `LARGEST_WEIGHT` (arXiv 2012.09841, eq. 7).

    It is the ratio of the lengths of both losses' gradients at the last layer of the decoder, so that there they pull
    equally. 1e-4 is added below, as in the published code (1e-6 in the paper). Gradients are averaged over processes
    first, so that all of them take the same weight; all have to call. last_layer: a weight that both losses depend on.
    """
    lengths = []
    for loss in (reconstruction, adversarial):
        (gradient,) = torch.autograd.grad(loss, last_layer, retain_graph=True)
        if distributed.world_size() > 1:
            gradient = gradient.contiguous()
            dist.all_reduce(gradient)
            gradient /= distributed.world_size()
        lengths.append(torch.linalg.vector_norm(gradient.float()))
    return (lengths[0] / (lengths[1] + 1e-4)).clamp(0, LARGEST_WEIGHT).detach()
