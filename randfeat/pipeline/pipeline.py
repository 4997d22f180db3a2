"""Pipeline of a tokenizer and a generator: what `load` returns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from PIL import Image
from torch import Tensor

from .. import models
from ..data.images import Array, Images, Picture, preview
from ..data.labels import Label
from ..inference import editing
from ..inference.bias import checked_bias
from ..inference.editing import Framing, as_framing, pictures
from ..inference.extrapolation import Extrapolation, enlarge
from ..inference.extrapolation import sample as sample_larger
from ..inference.sampling import Sampling
from ..inference.sampling import decode as decode_tokens
from ..inference.sampling import sample as sample_tokens
from ..inference.schedules import Guidance, Schedule
from ..models import orders
from ..utils import atomic, drawing, rng
from ..utils.checks import check_whole_number
from . import painting
from .base import BATCH
from .likelihoods import LikelihoodPipeline
from .painting import EditRequest


class Pipeline(LikelihoodPipeline):
    """A tokenizer with the generator of its tokens: features, samples, edits and likelihoods of images."""

    # sampling --------------------------------------------------------------------------------------------------

    def sample(
        self,
        labels: Sequence[Label],
        sampling: Sampling | None = None,
        seed: int | Iterable[int] = 0,
        order: Sequence[int] | Tensor | None = None,
        extrapolation: Extrapolation | None = None,
        batch_size: int = BATCH,
        control: Images | None = None,
        control_type: str | None = None,
        control_scale: float | None = None,
        bias: Tensor | None = None,
        tick: Callable[[Tensor], object] = lambda calls: None,
    ) -> Tensor:
        """Return one image for each label (see `labels.Classes.index`): (B, channels, H, W) in [0, 1].

        seed: image i has the seed `seed + i`, or the i-th of a list. order: a permutation, (N,) for all images or
        (B, N), instead of the mode in `sampling`. extrapolation: makes larger images than the model was trained on; an
        order is then one of the large grid, the small image's tokens first. batch_size: images at a time; it changes no
        image but for float rounding.

        control: images whose edges, say, the samples shall have, one for all or one for each; for a generator with
        control. control_type: "image" where they are such conditions themselves, see `conditions`. control_scale:
        guidance towards the condition, 1 for none, which saves a branch; by default as in `sampling`.

        bias: tokens that are favoured, disfavoured or forbidden, of all images or of each, see
        `inference.bias.checked_bias`. tick is called with the network calls of each image of a batch, (b,).
        """
        how = sampling or self.sampling
        if control_scale is not None:
            how = replace(how, control_guidance=Guidance(control_scale))
        label = self.label_indices(labels)
        if not len(label):
            raise ValueError("there is nothing to sample: give a label, or None, for each image")
        check_whole_number("batch_size", batch_size, 1)
        seeds, grid = rng.of_images(seed, len(label)), self.generator.grid
        if bias is not None:
            bias = self.check_bias(bias, len(label), extrapolation)
        if extrapolation is not None:
            grid = extrapolation.grid(grid)
        given = None if order is None else _one_each(orders.explicit(order, grid), len(label))
        wanted = None if control is None else _for_each(self.conditions(control, control_type), len(label))
        images, generator = [], self.inference_generator()
        for part in torch.arange(len(label)).split(min(batch_size, len(label))):
            common = generator, label[part], seeds[part], how
            places = None if given is None else given[part]
            condition = None if wanted is None else self.condition_tokens(wanted[part])
            if extrapolation is None:
                favoured = None if bias is None else bias[part]
                tokens = sample_tokens(*common, places, None, condition, favoured, tick)
            else:
                tokens = sample_larger(*common, extrapolation, places, condition, tick)
            images.append(self.decode(tokens, grid))
        return torch.cat(images)

    def check_bias(self, bias: Tensor, images: int, extrapolation: Extrapolation | None = None) -> Tensor:
        """Return the bias of each of so many images, (B, N, V), see `inference.bias.checked_bias`.

        Raises a ValueError for one that `sample` does not take.
        """
        if extrapolation is not None:
            raise ValueError("a bias is of tokens of the trained grid: leave out the bias, or extrapolation")
        return checked_bias(bias, images, self.generator)

    def check_sampling(
        self,
        sampling: Sampling,
        order: Sequence[int] | Tensor | None = None,
        extrapolation: Extrapolation | None = None,
        control: Images | None = None,
        control_type: str | None = None,
    ) -> None:
        """Raise the ValueError that `sample` would raise, at the cost of its first step for one image."""
        model, grid = self.inference_generator(), self.generator.grid
        large = grid if extrapolation is None else extrapolation.grid(grid)
        given = None if order is None else torch.atleast_2d(orders.explicit(order, large))[:1]
        condition = None if control is None else self.condition_tokens(self.conditions(control, control_type)[:1])
        label, seeds = self.label_indices([None]), torch.zeros(1, dtype=torch.int64)
        if extrapolation is not None:
            small = torch.zeros(1, model.num_tokens, dtype=torch.int64)
            next(enlarge(model, small, label, seeds, sampling, extrapolation, given, condition=condition))
            given = None if given is None else extrapolation.small_order(grid, given)
        next(decode_tokens(model, label, seeds, sampling, given, condition=condition))

    def forward(
        self,
        class_labels: Sequence[Label],
        num_steps: int = 64,
        cfg_scale: float = 4.0,
        cfg_schedule: Literal["constant", "linear"] = "constant",
        sample_schedule: Literal["arccos", "cosine"] = "arccos",
        seed: int = 6,
        output_dir: str | Path | None = None,
        model_type: str | None = None,
        temperature: float = 1.0,
        top_k: int = 600,
        samples_per_row: int = 4,
    ) -> Image.Image:
        """Return a grid of samples; keywords, defaults and meaning are those of ARPG's published pipeline.

        cfg_schedule `linear` rises from 1 to cfg_scale, counted after each step. output_dir: directory for the grid, as
        `sampled_image.png`; nothing is written without it. model_type: refused unless it names the loaded model. Unlike
        there, each image has its own seed and order (see `sample`), and the name of its class is written below it.
        """
        family = models.name_of(self.generator)
        size = models.size_of(family, self.generator.config)
        if model_type is not None and model_type.lower().replace("-", "_") not in (family, size):
            loaded = (size or family).upper().replace("_", "-")
            raise ValueError(f"model_type is {model_type!r}, but {loaded} was loaded: leave it out, or load the other")
        schedules: dict[str, Schedule] = {"arccos": "arccos", "cosine": "cosine-arpg"}
        if sample_schedule not in schedules:
            raise ValueError(f"sample_schedule must be one of {', '.join(schedules)}, got {sample_schedule!r}")
        guidance = Guidance(cfg_scale, cfg_schedule, counted="after")
        how = Sampling(num_steps, schedules[sample_schedule], guidance, temperature, top_k)
        shown = [preview(image) for image in self.sample(class_labels, how, seed)]
        names = [self.classes.short(label) for label in self.label_indices(class_labels).tolist()]
        picture = drawing.grid(shown, samples_per_row, names if self.classes.count else None)
        if output_dir is not None:
            Path(output_dir).mkdir(parents=True, exist_ok=True)
            atomic.write_bytes(Path(output_dir) / "sampled_image.png", drawing.png(picture))
        return picture

    # editing of pictures of any size -----------------------------------------------------------------------------

    def inpaint(
        self,
        images: Images,
        mask: editing.Mask | Sequence[editing.Mask],
        label: Label | Sequence[Label] = None,
        samples: int = 1,
        seed: int | Iterable[int] = 0,
        sampling: Sampling | None = None,
        framing: str | Framing = "around",
        guess: int = 0,
        batch_size: int = BATCH,
        control: Images | None = None,
        control_type: str | None = None,
        bias: Tensor | None = None,
    ) -> list[Image.Image]:
        """Paint the masked pixels of pictures of any size, given the others, which come back bit for bit.

        images: one picture or several, as `images.as_images` takes them; 8 bits of them are used. mask: of the
        picture's size, white or True where to paint, or a box (see `editing.as_mask`). framing: the part of the picture
        that the model sees, see `editing.Framing`, or the name of its fit. mask and label: one for all pictures, or a
        list. Returns `samples` of each picture in turn, of its size and in mode "L" or "RGB"; result i has the seed
        `seed + i`, or the i-th of a list, and `batch_size` of them are made at a time.

        guess: where no label is given, paint towards the class under which the known tokens are likeliest, their log p
        averaged over so many orders. Masked pixels are never read. An empty mask leaves a picture as it is. A model of
        raster order alone does not see what comes after the mask.

        control: a picture as large for each, whose edges, say, the result shall have, see `sample`; the picture itself
        keeps the shapes under its mask. bias: tokens that are favoured, disfavoured or forbidden, (V,) everywhere, or
        by place: cells (rows, columns, V), any number of them, laid over each picture, where a token has the bias of
        the cell that its middle lies in, see `inference.bias.checked_cells`.
        """
        how = sampling or self.sampling, as_framing(framing), label, samples, seed, guess, batch_size
        masked = pictures.masked(images, mask)
        return painting.paint(self, EditRequest(masked, *how, control=control, control_type=control_type, bias=bias))

    def edit(
        self,
        images: Images,
        mask: editing.Mask | Sequence[editing.Mask],
        label: Label | Sequence[Label],
        samples: int = 1,
        seed: int | Iterable[int] = 0,
        sampling: Sampling | None = None,
        framing: str | Framing = "around",
        batch_size: int = BATCH,
        control: Images | None = None,
        control_type: str | None = None,
        bias: Tensor | None = None,
    ) -> list[Image.Image]:
        """Paint as `inpaint` towards a class: with guidance, of 2 where neither `sampling` nor the model has any."""
        how = sampling or painting.guided(self.sampling)
        more = batch_size, control, control_type, bias
        return self.inpaint(images, mask, label, samples, seed, how, framing, 0, *more)

    def outpaint(
        self,
        images: Images,
        size: tuple[int, int] | None = None,
        left: int = 0,
        top: int = 0,
        right: int = 0,
        bottom: int = 0,
        label: Label | Sequence[Label] = None,
        samples: int = 1,
        seed: int | Iterable[int] = 0,
        sampling: Sampling | None = None,
        framing: str | Framing = "tile",
        guess: int = 0,
        batch_size: int = BATCH,
        control: Images | None = None,
        control_type: str | None = None,
        bias: Tensor | None = None,
    ) -> list[Image.Image]:
        """Paint around pictures, which come back bit for bit: so many pixels on each side, or to a size, width and
        height, with the picture in its middle. Beyond the trained grid windows slide, which share known tokens.
        control: a picture as large as each result. bias: its cells are laid over the result. The rest is as in
        `inpaint`.
        """
        how = sampling or self.sampling, as_framing(framing), label, samples, seed, guess, batch_size
        larger = pictures.extended(images, size, (left, top, right, bottom))
        return painting.paint(self, EditRequest(larger, *how, control=control, control_type=control_type, bias=bias))

    def variations(
        self,
        images: Images,
        keep: float = 0.5,
        label: Label | Sequence[Label] = None,
        samples: int = 1,
        seed: int | Iterable[int] = 0,
        sampling: Sampling | None = None,
        batch_size: int = BATCH,
        control: Images | None = None,
        control_type: str | None = None,
        bias: Tensor | None = None,
    ) -> list[Image.Image]:
        """Return variations of pictures: the share `keep` of their tokens stays, at places that each result's seed
        draws, and the others are drawn anew. Each picture is seen entirely, at the model's size, and none of its pixels
        is pasted back. The rest is as in `inpaint`.
        """
        how = sampling or self.sampling, Framing("whole"), label, samples, seed, 0, batch_size
        request = EditRequest(pictures.entirely_masked(images), *how, control, control_type, bias)
        return painting.vary(self, request, keep)

    def watch(
        self,
        label: Label = None,
        image: Array | Picture | None = None,
        mask: editing.Mask | None = None,
        seed: int = 0,
        sampling: Sampling | None = None,
        framing: str | Framing = "around",
        guess: int = 0,
        control: Array | Picture | None = None,
        control_type: str | None = None,
        bias: Tensor | None = None,
    ) -> Iterator[painting.Frame]:
        """Return the moments of `sample`, or with a picture and a mask of `inpaint`: before the first step and after
        each, grey where nothing is made yet, with the step that made each token. The last one is the result.

        `drawing.gif` and `drawing.order_sheet` show them.
        """
        if image is None and mask is None:
            picture = painting.grey_picture(self)
        elif image is not None and mask is not None:
            (picture,) = pictures.masked(image, mask)
        else:
            raise ValueError("a mask says where to paint in a picture: give both, or leave both out")
        how, given = (sampling or self.sampling, as_framing(framing)), None if control is None else [control]
        return painting.watch(self, EditRequest([picture], *how, label, 1, seed, guess, 1, given, control_type, bias))

    def complete(
        self,
        tokens: Tensor,
        known: Tensor,
        labels: Sequence[Label] | None = None,
        seed: int | Iterable[int] = 0,
        sampling: Sampling | None = None,
        control: Images | None = None,
        control_type: str | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        """Return tokens (B, N) in raster space with the unknown ones drawn given the known ones, which stay.

        known: bool (N,) or (B, N), as many in each image. labels: one for each, by default the null class. `decode`
        makes pixels of the result. control, bias: as in `sample`; a bias decides nothing about known tokens.
        """
        label = self.label_indices([None] * len(tokens) if labels is None else labels)
        if len(label) != len(tokens):
            raise ValueError(f"{len(label)} labels for {len(tokens)} images: give one for each")
        device, seeds = self.generator.device, rng.of_images(seed, len(tokens))
        how, condition = sampling or self.sampling, None
        if control is not None:
            condition = self.condition_tokens(_for_each(self.conditions(control, control_type), len(tokens)))
        return editing.complete(
            self.inference_generator(), tokens.to(device), known.to(device), label, seeds, how, condition, bias
        )


load = Pipeline.from_pretrained


def _for_each(condition_images: Tensor, images: int) -> Tensor:
    """Return condition images, one for all or one for each, as one for each: (B, c, H, W)."""
    if (given := len(condition_images)) not in (1, images):
        raise ValueError(f"{given} control images for {images} images: give one for all or one for each")
    return condition_images.expand(images, -1, -1, -1)


def _one_each(order: Tensor, images: int) -> Tensor:
    """Return an order (N,) or (B, N) as one for each image, (B, N)."""
    if order.ndim > 2 or (order.ndim == 2 and len(order) not in (1, images)):
        raise ValueError(f"orders of shape {tuple(order.shape)} for {images} images: give one for all or one for each")
    return order.expand(images, -1)
