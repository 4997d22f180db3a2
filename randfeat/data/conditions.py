"""Condition images, which guide a generator: edges, low resolution, masks, sketches, or pictures that are given.

`KINDS` holds the kinds by name. Each is a function of float images (B, C, H, W) in [0, 1], with C 1 or 3, to
(B, c, H, W) in [0, 1]. Smoothing grows with the picture up to 64 pixels, so that digits of 8 x 8
have edges as photographs do.

The edges are Canny's in torch, on the device that trains, and not OpenCV's: `cv2.Canny` on the same gradient finds the
same pixels (F1 1.000 on scikit-learn's digits, 0.999 on its two photographs), but on the CPU alone, picture by picture.
kornia's differ on the photographs (F1 0.53 to 0.78 with these thresholds): recorded runs would change.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)
SMOOTHEST = 1.0  # std in pixels of the Gaussian before edge detection, for pictures of 64 pixels or more
THRESHOLDS = (0.05, 0.1)  # gradients, where a step from black to white has 1
GROWTH = 8  # passes of hysteresis between two tests for its end, each of which waits for the device


def grey(images: Tensor) -> Tensor:
    """Return the luma, float (B, 1, H, W)."""
    if images.shape[1] == 1:
        return images
    return (images * images.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)


def edges(images: Tensor, low: float = THRESHOLDS[0], high: float = THRESHOLDS[1]) -> Tensor:
    """Return edges one pixel wide, 0 or 1, by Canny's detector (IEEE PAMI 8(6), 1986): (B, 1, H, W).

    A Gaussian; Sobel's gradient, scaled so that a step from black to white has 1; non-maximum suppression along its
    direction; hysteresis, which keeps pixels above `high`, and those above `low` that are connected to them.
    """
    x, y = _gradient(blur(grey(images), smoothing(images)))
    strength = torch.hypot(x, y)
    thin = strength.masked_fill(~_is_ridge(strength, x, y), 0)
    return _connected(thin >= high, thin >= low).to(images.dtype)


def _gradient(brightness: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradient to the right and down by Sobel's filter, borders replicated: each (B, 1, H, W)."""
    across = brightness.new_tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 4
    padded = F.pad(brightness, (1, 1, 1, 1), mode="replicate")
    x, y = F.conv2d(padded, torch.stack((across, across.T))[:, None]).split(1, 1)
    return x, y


def _is_ridge(strength: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return where a gradient (x, y) is larger than before it and no smaller than behind it: bool (B, 1, H, W).

    So of two equal neighbours, as beside a sharp step, one remains.
    """
    height, width = strength.shape[2:]
    padded = F.pad(strength, (1, 1, 1, 1))
    octant = (torch.atan2(y, x) * (4 / math.pi)).round().long() % 4  # to the right, down right, down, down left
    ridge = torch.zeros_like(strength, dtype=torch.bool)
    for number, (dy, dx) in enumerate(((0, 1), (1, 1), (1, 0), (1, -1))):
        before = padded[:, :, 1 - dy : 1 - dy + height, 1 - dx : 1 - dx + width]
        behind = padded[:, :, 1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]
        # rounding must not decide between equals
        ridge |= (octant == number) & (strength > before + 1e-6) & (strength >= behind - 1e-6)
    return ridge


def _connected(seeds: Tensor, where: Tensor) -> Tensor:
    """Return the 8-connected components of `where` that hold a seed: bool (B, 1, H, W)."""
    found, before = seeds & where, -1
    while (count := int(found.sum())) != before:
        before = count
        for _ in range(GROWTH):
            found = (F.max_pool2d(found.float(), 3, 1, 1) > 0) & where
    return found


def lowres(images: Tensor, factor: int = 4) -> Tensor:
    """Return the means of squares of `factor` x `factor` pixels, at the size of the image: (B, C, H, W)."""
    height, width = images.shape[2:]
    small = F.adaptive_avg_pool2d(images, (max(1, height // factor), max(1, width // factor)))
    return F.interpolate(small, (height, width), mode="nearest-exact")


def mask(images: Tensor) -> Tensor:
    """Return the foreground, 0 or 1: (B, 1, H, W).

    Otsu's threshold separates dark from light; the background is the one that most of the border belongs to. An image
    of one brightness is background.
    """
    brightness = grey(images)
    values = brightness.flatten(1).sort(1).values.double()
    count, total = values.shape[1], values.cumsum(1)
    darker = torch.arange(1, count, device=images.device, dtype=torch.float64)
    mean_dark, mean_light = total[:, :-1] / darker, (total[:, -1:] - total[:, :-1]) / (count - darker)
    between = darker * (count - darker) * (mean_light - mean_dark).square()
    between = between.masked_fill(values[:, 1:] == values[:, :-1], -1)  # no threshold between equal values
    best = between.argmax(1, keepdim=True)
    parted = between.gather(1, best) > 0
    light = brightness >= values.gather(1, best + 1).to(brightness.dtype).view(-1, 1, 1, 1)
    border = torch.cat((light[:, :, [0, -1]].flatten(1), light[:, :, :, [0, -1]].flatten(1)), 1)
    is_ground_light = border.float().mean(1).view(-1, 1, 1, 1) > 0.5
    return ((light ^ is_ground_light) & parted.view(-1, 1, 1, 1)).to(images.dtype)


def sketch(images: Tensor) -> Tensor:
    """Return soft lines, as of a pencil, where brightness changes: (B, 1, H, W).

    The magnitude of the gradient, of a smoother picture than in `edges`, relative to its root mean square in the image.
    """
    strength = torch.hypot(*_gradient(blur(grey(images), max(0.5, 1.5 * smoothing(images)))))
    typical = strength.square().mean((2, 3), keepdim=True).sqrt()
    return (strength / (3 * typical).clamp_min(0.03)).clamp(max=1)


def image(images: Tensor) -> Tensor:
    """Return the picture itself: a depth map, a drawing or a segmentation map that was given."""
    return images


def smoothing(images: Tensor) -> float:
    """Return the std of the Gaussian, in pixels, for images of this size."""
    return min(SMOOTHEST, min(images.shape[2:]) / 64)


def blur(images: Tensor, std: float) -> Tensor:
    """Return images smoothed by a Gaussian of this std in pixels, borders replicated: (B, 1, H, W), same shape."""
    reach = math.ceil(3 * std)
    places = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    weights = (-0.5 * (places / std).square()).exp()
    weights = weights / weights.sum()
    wide = F.conv2d(F.pad(images, (reach, reach, 0, 0), mode="replicate"), weights.view(1, 1, 1, -1))
    return F.conv2d(F.pad(wide, (0, 0, reach, reach), mode="replicate"), weights.view(1, 1, -1, 1))


@dataclass(frozen=True)
class Kind:
    """A kind of condition.

    make: computes it from images. channels: of the condition; 0 for those of the image. given: whether it is only
    given, never computed.
    """

    make: Callable[[Tensor], Tensor]
    channels: int = 1
    given: bool = False


GIVEN = "image"
KINDS: dict[str, Kind] = {
    "edges": Kind(edges),
    "lowres": Kind(lowres, channels=0),
    "mask": Kind(mask),
    "sketch": Kind(sketch),
    GIVEN: Kind(image, channels=0, given=True),
}


def kind_of(name: str) -> Kind:
    """Return a kind by its name; a ValueError lists the names."""
    if name not in KINDS:
        raise ValueError(f"unknown kind of condition {name!r}, expected one of {', '.join(KINDS)}")
    return KINDS[name]


def make(images: Tensor, name: str) -> Tensor:
    """Return the condition of a kind by its name, of images (B, C, H, W) in [0, 1]: float32 (B, c, H, W)."""
    kind = kind_of(name)
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"conditions are made of images (B, 1 or 3, H, W), got {tuple(images.shape)}")
    return kind.make(images.float())
