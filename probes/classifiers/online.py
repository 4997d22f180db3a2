"""Linear heads trained on features of a new random crop of each image in every epoch, as published probes are.

The encoder runs once per image and epoch, whatever the number of heads.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import InterpolationMode
from torchvision.transforms import v2 as transforms

from ..arrays import as_labels, check_finite, two_or_more_classes
from .heads import HeadRecipe, Heads, Stack, Sweep, batches, held_out_rows

Picture: TypeAlias = "Image.Image | str | Path"
EncodeFunction: TypeAlias = "Callable[[Tensor], Tensor | Mapping[str, Tensor]]"
"""Function of float32 images (B, 3, size, size) in [0, 1]; returns features (B, d), or several by name (layers, pools).

It normalises pixels for its network and moves them to its device.
"""

Transform: TypeAlias = "Callable[[Image.Image], Tensor]"


def augmentation(size: int) -> Transform:
    """Return a random crop (8 to 100 % of the area, sides 3:4 to 4:3), resized bicubically to `size` and mirrored with
    probability 0.5.

    MAE's and DINOv2's linear probes train with it (arXiv 2111.06377, 2304.07193); MAE's own code differs when the first
    box that it draws does not fit into the image.
    """
    crop = transforms.RandomResizedCrop(size, interpolation=InterpolationMode.BICUBIC, antialias=True)
    return transforms.Compose([crop, transforms.RandomHorizontalFlip(), *_AS_TENSOR])


def centre_crop(size: int) -> Transform:
    """Return the centre crop at `size`, after a bicubic resize of the short side to 8/7 of it (256 for 224)."""
    resize = transforms.Resize(round(size * 8 / 7), interpolation=InterpolationMode.BICUBIC, antialias=True)
    return transforms.Compose([resize, transforms.CenterCrop(size), *_AS_TENSOR])


_AS_TENSOR = [transforms.ToImage(), transforms.ToDtype(torch.float32, scale=True)]


def sweep_online(
    images: Sequence[Picture],
    labels: ArrayLike,
    held_out: ArrayLike,
    encode: EncodeFunction,
    recipe: HeadRecipe,
    size: int = 224,
    seed: int = 0,
    device: str = "cpu",
    workers: int = 0,
    images_at_once: int = 64,
) -> Sweep:
    """Train the heads of `recipe` on random crops of images that are not held out; choose by centre crops of the rest.

    held_out: bool (n,); keep images of one group on one side. The first of equal trials wins. workers: processes that
    read images; crops depend on `seed`, the step and the image only. images_at_once: images per call of `encode`; a
    batch of the recipe may be larger. The returned probe predicts from what `encode` returns.
    """
    y = as_labels(labels, len(images))
    mask = held_out_rows(held_out, len(y))
    shown = [image for image, held in zip(images, mask, strict=True) if not held]
    scored = [image for image, held in zip(images, mask, strict=True) if held]
    heads = train_online(shown, y[~mask], encode, recipe, size, seed, device, workers, images_at_once)
    return Sweep.of(heads, score_online(heads, scored, y[mask], encode, size, workers, images_at_once))


def train_online(
    images: Sequence[Picture],
    labels: ArrayLike,
    encode: EncodeFunction,
    recipe: HeadRecipe,
    size: int = 224,
    seed: int = 0,
    device: str = "cpu",
    workers: int = 0,
    images_at_once: int = 64,
) -> Heads:
    """Return the heads of `recipe` for every feature that `encode` gives, trained on random crops of all images."""
    y = as_labels(labels, len(images))
    classes = two_or_more_classes(y)
    codes = torch.from_numpy(np.searchsorted(classes, y)).to(device)
    heads = Heads({}, classes, recipe, seed, device)

    def plan() -> Iterator[NDArray[np.intp]]:
        return islice(batches(len(y), recipe.batch, seed), recipe.steps(len(y)))

    crops = _crops(images, plan(), augmentation(size), seed, workers, images_at_once)
    for step, rows in enumerate(plan()):
        features = _encoded(encode, crops, rows, images_at_once)
        for name, x in features.items():
            if name not in heads.stacks:
                heads.stacks[name] = Stack(x.shape[1], len(classes), recipe, seed, device)
            heads.stacks[name].step(x.to(device), codes[rows], recipe.factor(step, len(y)))
    return heads


def score_online(
    heads: Heads,
    images: Sequence[Picture],
    labels: ArrayLike,
    encode: EncodeFunction,
    size: int = 224,
    workers: int = 0,
    images_at_once: int = 64,
) -> NDArray[np.bool_]:
    """Return whether each head is right (trials, n) on centre crops; a class that training did not show counts as
    wrong."""
    y = as_labels(labels, len(images))
    plan = [np.arange(len(y))[start : start + images_at_once] for start in range(0, len(y), images_at_once)]
    crops = _crops(images, plan, centre_crop(size), 0, workers, images_at_once)
    return np.concatenate(
        [heads.correct(_encoded(encode, crops, rows, images_at_once), y[rows]) for rows in plan], axis=1
    )


class _Crops(Dataset):
    def __init__(self, images: Sequence[Picture], transform: Transform, seed: int) -> None:
        self.images, self.transform, self.seed = images, transform, seed

    def __getitem__(self, drawn: tuple[int, int]) -> Tensor:
        step, row = drawn
        picture = self.images[row]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(np.random.default_rng([self.seed, step, row]).integers(2**63)))
            if isinstance(picture, Image.Image):
                return self._crop(picture)
            with Image.open(picture) as opened:
                return self._crop(opened)

    def _crop(self, picture: Image.Image) -> Tensor:
        return self.transform(ImageOps.exif_transpose(picture).convert("RGB"))


def _crops(
    images: Sequence[Picture],
    plan: Iterable[NDArray[np.intp]],
    transform: Transform,
    seed: int,
    workers: int,
    images_at_once: int,
) -> Iterator[Tensor]:
    """Return an iterator over crops of all steps, at most `images_at_once` at a time and never of two steps."""
    parts = (
        [(step, int(row)) for row in rows[start : start + images_at_once]]
        for step, rows in enumerate(plan)
        for start in range(0, len(rows), images_at_once)
    )
    loader = DataLoader(
        _Crops(images, transform, seed),
        batch_sampler=parts,
        num_workers=workers,
        multiprocessing_context="spawn" if workers else None,
        generator=torch.Generator(),  # the loader draws a seed, which must not come from the global generator
    )
    return iter(loader)


@torch.no_grad()
def _encoded(
    encode: EncodeFunction, crops: Iterator[Tensor], rows: NDArray[np.intp], images_at_once: int
) -> dict[str, Tensor]:
    """Return float32 features of the images `rows` by name."""
    parts = [encode(next(crops)) for _ in range(0, len(rows), images_at_once)]
    named = [part if isinstance(part, Mapping) else {"features": part} for part in parts]
    features = {name: torch.cat([part[name] for part in named]).float() for name in named[0]}
    for name, x in features.items():
        if x.shape != (len(rows), x.shape[-1]):
            raise ValueError(f"encode gave {name!r} of shape {tuple(x.shape)} for {len(rows)} images, expected (B, d).")
        check_finite(x.cpu().numpy(), f"{name} of images {rows[0]} to {rows[-1]}")
    return features
