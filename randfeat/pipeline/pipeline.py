"""Tokenizer and generator together: what `load` returns, with pictures at both ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .. import models
from ..data import images as data
from ..data.labels import Label
from ..inference import editing, likelihood, readout, successive_halving
from ..inference import extrapolation as extrapolating
from ..inference.editing import Framing
from ..inference.extrapolation import Extrapolation
from ..inference.likelihood import Classification, LogProb
from ..inference.readout import FeatureSpec
from ..inference.sampling import Sampling
from ..inference.sampling import decode as draw_step_by_step
from ..inference.sampling import sample as draw_tokens
from ..inference.schedules import Guidance, Schedule
from ..inference.successive_halving import SuccessiveHalving
from ..models import orders
from ..tokenizers import Tokenizer
from ..utils import atomic, drawing, rng
from ..utils.checks import check_whole_number
from ..weights.loading import load_parts
from . import painting
from .base import BasePipeline

BATCH = 64  # images at a time


class Pipeline(BasePipeline):
    """What there is to do with a tokenizer and its generator: read, write, paint, and tell how likely images are."""

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        num_heads: int | None = None,
        grid: tuple[int, int] | None = None,
        tokenizer: str | Path | Tokenizer | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Pipeline:
        """Open a model, strictly, and run nothing in its files as code. `randfeat.load` is this method.

        source: a directory that `save` wrote; the path of an official .safetensors, .pt or .bin file; a short name of
            `weights.published.MODELS`, such as "randar-l-llamagen"; or the id owner/name of a repository on the Hugging
            Face hub that `push_to_hub` wrote. A path that exists goes before a name.
        num_heads: attention heads, which official files do not tell. Needed where the size is not a published one.
        grid: rows and columns of tokens, which they do not tell either; by default those of the published model of this
            size and file name, else 16 x 16.
        tokenizer: for official files, what `load_tokenizer` takes, or one that is open, which is moved to the device;
            by default the published one with as many codes, from the hub.
        device: "auto" takes CUDA, else Apple's MPS, else the CPU.
        dtype: what the generator's weights are converted to. The tokenizer stays float32: in half precision it would
            choose other tokens.

        Raises a FileNotFoundError, ConnectionError or ValueError of one sentence.
        """
        parts = load_parts(source, num_heads=num_heads, grid=grid, tokenizer=tokenizer, device=device, dtype=dtype)
        return cls(parts.tokenizer, parts.generator, parts.class_names, parts.training, parts.sampling)

    # reading and writing ---------------------------------------------------------------------------------------

    def features(
        self,
        images: data.Images | Iterable[data.Picture],
        spec: str | FeatureSpec | None = None,
        batch_size: int = BATCH,
        progress: bool = False,
    ) -> np.ndarray:
        """Return features of images as `spec` says, or as suits the model: float32 (B, F), or (B, F, h, w) of pool
        `none`.

        Any number of images, of an iterator too: `batch_size` of them are held at a time. progress: show a bar.
        """
        parsed, found = self.reading(spec), []
        for batch in data.batches(images, batch_size, "reading" if progress else None):
            pixels = data.as_images(batch, self.tokenizer.channels, self.image_size)
            found += self.read_pixels(pixels.to(self.generator.device), [parsed])
        return np.concatenate(found)

    @torch.no_grad()
    def read_pixels(self, pixels: Tensor, specs: Sequence[FeatureSpec]) -> list[np.ndarray]:
        """Return for each spec the features, as `features`, of one batch of images that are prepared already.

        pixels: floats (B, channels, H, W) in [0, 1] of `image_size`, on the model's device. specs: as `reading`
        returns them; those with the same shifts share the tokenizer.
        """
        found: dict[FeatureSpec, np.ndarray] = {}
        for shifts in dict.fromkeys(spec.shifts for spec in specs):
            group = [spec for spec in specs if spec.shifts == shifts]
            features = readout.read(self.reader(), self.encode_pixels(pixels, shifts), group)
            found.update((spec, values.numpy()) for spec, values in zip(group, features, strict=True))
        return [found[spec] for spec in specs]

    def tokens(
        self, images: data.Images | Iterable[data.Picture], batch_size: int = BATCH, progress: bool = False
    ) -> np.ndarray:
        """Tokens of images in raster space: uint16 (B, N), uint32 where the codebook needs it. As `features`, it takes
        any number of images; `encode` does one batch, on the model's device.
        """
        kind = np.uint16 if self.tokenizer.vocab_size <= 1 << 16 else np.uint32
        batches = data.batches(images, batch_size, "encoding" if progress else None)
        return np.concatenate([self.encode(batch).cpu().numpy().astype(kind) for batch in batches])

    def as_map_fn(
        self,
        spec: str | FeatureSpec | None = None,
        image: str = "image",
        output: str = "features",
    ) -> Callable[[Mapping[str, Any]], dict[str, np.ndarray]]:
        """Return a function for `map` of Hugging Face's datasets: `dataset.map(model.as_map_fn(), batched=True)`.

        It reads the column `image` and adds the column `output`, float32. One call of it is one batch: map's
        `batch_size`. datasets looks into its cache by a hash over the function, so over the weights, which takes
        seconds for a gigabyte; `map(..., new_fingerprint=...)` spares that. Leave `num_proc` out: one process keeps
        all cores busy, and the forks of one that has computed may wait for each other for ever.
        """
        return partial(_map, self, self.reading(spec), image, output)

    def reading(self, spec: str | FeatureSpec | None = None) -> FeatureSpec:
        """Return a spec with layers as numbers, the model's own for None; a ValueError for what it cannot do."""
        parsed = readout.default(self.generator) if spec is None else FeatureSpec.parse(spec)
        if parsed.shifts > self.tokenizer.stride:
            raise ValueError(f"feature spec {parsed}: a token of {self.tokenizer.stride} pixels has no more shifts")
        return readout.check(self.generator, parsed)

    def sample(
        self,
        labels: Sequence[Label],
        sampling: Sampling | None = None,
        seed: int | Iterable[int] = 0,
        order: Sequence[int] | Tensor | None = None,
        extrapolation: Extrapolation | None = None,
        batch_size: int = BATCH,
        control: data.Images | None = None,
        control_type: str | None = None,
        control_scale: float | None = None,
    ) -> Tensor:
        """Return one image for each label (see `classes.Classes.index`): (B, channels, H, W) in [0, 1].

        seed: image i has the seed `seed + i`, or the i-th of a list. order: a permutation, (N,) for all images or
        (B, N), instead of the mode in `sampling`. extrapolation: larger images than the model was trained on, of which
        an order then speaks, the small image's tokens first. batch_size: images at a time, which changes none of them
        up to float rounding.

        control: images whose edges, say, the samples shall have, one for all or one for each; for a generator with
        control. control_type: "image" where they are such conditions themselves, see `conditions`. control_scale: how
        much more the samples shall follow them, 1 for a batch less; by default as in `sampling`.
        """
        sampling = sampling or self.sampling
        if control_scale is not None:
            sampling = replace(sampling, control_guidance=Guidance(control_scale))
        _check_control(control, extrapolation)
        label = self.label_indices(labels)
        if not len(label):
            raise ValueError("there is nothing to sample: give a label, or None, for each image")
        check_whole_number("batch_size", batch_size, 1)
        seeds, grid = rng.of_images(seed, len(label)), self.generator.grid
        if extrapolation is not None:
            grid = extrapolation.grid(grid)
        given = None if order is None else _one_each(orders.explicit(order, grid), len(label))
        wanted = None if control is None else _for_each(self.conditions(control, control_type), len(label))
        images, generator = [], self.packed()
        for part in torch.arange(len(label)).split(min(batch_size, len(label))):
            how = generator, label[part], seeds[part], sampling
            places = None if given is None else given[part]
            if extrapolation is None:
                condition = None if wanted is None else self._condition(wanted[part])
                tokens = draw_tokens(*how, places, condition=condition)
            else:
                tokens = extrapolating.sample(*how, extrapolation, places)
            images.append(self.decode(tokens, grid))
        return torch.cat(images)

    def check_sampling(
        self,
        sampling: Sampling,
        order: Sequence[int] | Tensor | None = None,
        extrapolation: Extrapolation | None = None,
        control: data.Images | None = None,
        control_type: str | None = None,
    ) -> None:
        """Raise the ValueError that `sample` would raise, at the price of its first step for one image."""
        model, grid = self.packed(), self.generator.grid
        large = grid if extrapolation is None else extrapolation.grid(grid)
        given = None if order is None else torch.atleast_2d(orders.explicit(order, large))[:1]
        _check_control(control, extrapolation)
        condition = None if control is None else self._condition(self.conditions(control, control_type)[:1])
        label, seeds = self.label_indices([None]), torch.zeros(1, dtype=torch.int64)
        if extrapolation is not None:
            small = torch.zeros(1, model.num_tokens, dtype=torch.int64)
            next(extrapolating.enlarge(model, small, label, seeds, sampling, extrapolation, given))
            given = None if given is None else extrapolation.small_order(grid, given)
        next(draw_step_by_step(model, label, seeds, sampling, given, condition=condition))

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
        """Samples with the keywords, defaults and meaning of ARPG's published pipeline; returns a grid of the images.

        cfg_schedule `linear` rises from 1 to cfg_scale, counted after each step. output_dir: where the grid is left as
        `sampled_image.png`; nothing is written without it. model_type: refused unless it is what was loaded. Other than
        there, each image has a seed, and an order, of its own (see `sample`).
        """
        self._check_model_type(model_type)
        schedules: dict[str, Schedule] = {"arccos": "arccos", "cosine": "cosine-arpg"}
        if sample_schedule not in schedules:
            raise ValueError(f"sample_schedule must be one of {', '.join(schedules)}, got {sample_schedule!r}")
        guidance = Guidance(cfg_scale, cfg_schedule, counted="after")
        how = Sampling(num_steps, schedules[sample_schedule], guidance, temperature, top_k)
        picture = drawing.grid([data.to_pil(image) for image in self.sample(class_labels, how, seed)], samples_per_row)
        if output_dir is not None:
            Path(output_dir).mkdir(parents=True, exist_ok=True)
            atomic.write_bytes(Path(output_dir) / "sampled_image.png", drawing.png(picture))
        return picture

    def _check_model_type(self, model_type: str | None) -> None:
        family = models.name_of(self.generator)
        size = models.size_of(family, self.generator.config)
        if model_type is not None and model_type.lower().replace("-", "_") not in (family, size):
            loaded = (size or family).upper().replace("_", "-")
            raise ValueError(f"model_type is {model_type!r}, but {loaded} was loaded: leave it out, or load the other")

    # pictures of any size; see `editing` ---------------------------------------------------------------------------

    def inpaint(
        self,
        images: data.Images,
        mask: editing.Mask | Sequence[editing.Mask],
        label: Label | Sequence[Label] = None,
        samples: int = 1,
        seed: int | Iterable[int] = 0,
        sampling: Sampling | None = None,
        framing: str | Framing = "around",
        guess: int = 0,
        batch_size: int = BATCH,
        control: data.Images | None = None,
        control_type: str | None = None,
    ) -> list[Image.Image]:
        """Paint the masked pixels of pictures of any size, given the others, which come back bit for bit.

        images: one picture or several, as `data.as_images` takes them; 8 bits of them are used. mask: of the picture's
        size, white or True where to paint, or a box (see `editing.as_mask`). framing: what of the picture the model
        sees and how that comes back, see `editing.Framing`, or the name of its fit. mask and label: one for all
        pictures, or a list. Returns `samples` of each picture in turn, of its size and in mode "L" or "RGB"; result i
        has the seed `seed + i`, or the i-th of a list, and `batch_size` of them are made at a time.

        guess: where no label is given, paint towards the class under which what is known is likeliest, its log p
        averaged over so many orders. What the mask hides is never read. An empty mask leaves a picture as it is. A
        model of raster order alone does not see what comes after the mask.

        control: a picture as large for each, whose edges, say, shall be there, see `sample`; the picture itself keeps
        what its mask hides in shape.
        """
        how = sampling or self.sampling, editing.as_framing(framing), guess, batch_size, control, control_type
        return painting.inpaint(self, images, mask, label, samples, seed, *how)

    def edit(
        self,
        images: data.Images,
        mask: editing.Mask | Sequence[editing.Mask],
        label: Label | Sequence[Label],
        samples: int = 1,
        seed: int | Iterable[int] = 0,
        sampling: Sampling | None = None,
        framing: str | Framing = "around",
        batch_size: int = BATCH,
        control: data.Images | None = None,
        control_type: str | None = None,
    ) -> list[Image.Image]:
        """`inpaint` towards a class: with guidance, of 2 where nothing is said of `sampling` and the model has none."""
        how = sampling or painting.guided(self.sampling)
        return self.inpaint(images, mask, label, samples, seed, how, framing, 0, batch_size, control, control_type)

    def outpaint(
        self,
        images: data.Images,
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
        control: data.Images | None = None,
        control_type: str | None = None,
    ) -> list[Image.Image]:
        """Paint around pictures, which come back bit for bit: so many pixels on each side, or to a size, width and
        height, with the picture in its middle. Beyond the trained grid windows slide, which share known tokens.
        control: a picture as large as each result. The rest is as in `inpaint`.
        """
        how = sampling or self.sampling, editing.as_framing(framing), guess, batch_size, control, control_type
        return painting.outpaint(self, images, size, (left, top, right, bottom), label, samples, seed, *how)

    def variations(
        self,
        images: data.Images,
        keep: float = 0.5,
        label: Label | Sequence[Label] = None,
        samples: int = 1,
        seed: int | Iterable[int] = 0,
        sampling: Sampling | None = None,
        batch_size: int = BATCH,
    ) -> list[Image.Image]:
        """Pictures like these: the share `keep` of their tokens stays, at places that each result's seed draws, and the
        others are drawn anew. Each picture is seen as a whole, at the model's size, and no pixel of it is pasted back.
        The rest is as in `inpaint`.
        """
        return painting.variations(self, images, keep, label, samples, seed, sampling or self.sampling, batch_size)

    def complete(
        self,
        tokens: Tensor,
        known: Tensor,
        labels: Sequence[Label] | None = None,
        seed: int | Iterable[int] = 0,
        sampling: Sampling | None = None,
        control: data.Images | None = None,
        control_type: str | None = None,
    ) -> Tensor:
        """Tokens (B, N) in raster space with those that are not known drawn given the others, which stay as they are.

        known: bool (N,) or (B, N), as many in each image. labels: one for each. `decode` makes pixels of them. control:
        as in `sample`.
        """
        label = self.label_indices([None] * len(tokens) if labels is None else labels)
        if len(label) != len(tokens):
            raise ValueError(f"{len(label)} labels for {len(tokens)} images: give one for each")
        device, seeds = self.generator.device, rng.of_images(seed, len(tokens))
        how, condition = sampling or self.sampling, None
        if control is not None:
            condition = self._condition(_for_each(self.conditions(control, control_type), len(tokens)))
        return editing.complete(self.packed(), tokens.to(device), known.to(device), label, seeds, how, condition)

    @torch.no_grad()
    def _condition(self, images: Tensor) -> Tensor:
        """Condition tokens (B, N, D) of condition images."""
        generator = self.packed()
        assert generator.control is not None  # `conditions` has looked
        return generator.control(images.to(generator.device))

    def watch(
        self,
        label: Label = None,
        image: data.Array | data.Picture | None = None,
        mask: editing.Mask | None = None,
        seed: int = 0,
        sampling: Sampling | None = None,
        framing: str | Framing = "around",
        guess: int = 0,
        control: data.Array | data.Picture | None = None,
        control_type: str | None = None,
    ) -> Iterator[painting.Frame]:
        """Return the moments of `sample`, or with a picture and a mask of `inpaint`: before the first step and after
        each, grey where nothing is made yet, with the step that made each token. The last one is the result.

        `pictures.gif` and `pictures.order_sheet` show them.
        """
        if image is not None and mask is None:
            raise ValueError("a mask says where to paint in a picture: give one, or leave the picture out")
        how = sampling or self.sampling, editing.as_framing(framing), guess
        return painting.watch(self, image, mask, label, seed, *how, control=control, control_type=control_type)

    # how likely pictures are -----------------------------------------------------------------------------------

    def log_prob(
        self,
        images: data.Images | Iterable[data.Picture],
        labels: Sequence[Label] | None = None,
        orders: int = 16,
        seed: int = 0,
        batch_size: int = BATCH,
    ) -> LogProb:
        """log p(image | label) in nats, in each of `orders` orders, the same for all images: its `mean` and `deviation`
        are (B,).

        labels: one for each image, by default none, the null class. Any number of images, as for `features`.
        """
        parts = [
            likelihood.log_prob(self.packed(), tokens, label, orders, seed=seed)
            for tokens, label in self._labelled(images, labels, batch_size)
        ]
        return LogProb(torch.cat(parts))

    def classify(
        self,
        images: data.Images | Iterable[data.Picture],
        classes: Sequence[Label] | None = None,
        orders: int = 16,
        seed: int = 0,
        halving: SuccessiveHalving | None = None,
        batch_size: int = BATCH,
        progress: bool = False,
    ) -> Classification:
        """Which classes make images likeliest: by the mean of log p(image | class) over `orders` orders, the same for
        all images and classes.

        classes: those to choose from, all by default. halving: reads only the leading classes in all orders, for many
        classes (see `successive_halving`). Any number of images, as for `features`. progress: show a bar.
        """
        columns = self._classes(classes)
        names, parts = [self.classes.short(index) for index in columns], []
        for batch in data.batches(images, batch_size, "classifying" if progress else None):
            tokens = self.encode(batch).cpu()
            if halving is not None:
                how = self.packed(), tokens, columns, orders, halving
                scores, order, passes = successive_halving.rank_classes(*how, seed=seed)
            else:
                each = likelihood.class_log_prob(self.packed(), tokens, columns, orders, seed=seed)
                scores, distinct = each.mean(2), 1 if self.generator.raster_only else orders
                order = scores.argsort(dim=1, descending=True, stable=True)
                passes = torch.full((len(tokens),), float(len(columns) * distinct))
            parts.append(Classification(scores, order, columns, names, passes))
        return Classification.concatenated(parts)

    def surprisal(
        self,
        images: data.Images | Iterable[data.Picture],
        labels: Sequence[Label] | None = None,
        orders: int = 16,
        exact: bool = False,
        seed: int = 0,
        batch_size: int = BATCH,
    ) -> Tensor:
        """How unexpected each token of an image is: the mean over `orders` orders of -log p(token | those before it).

        In nats, float32 (B, h, w). exact: given all other tokens, which takes h * w times as long. labels: one for each
        image, by default none, the null class. `pictures.heat` shows a map.
        """
        parts = [
            likelihood.surprisal(self.packed(), tokens, label, orders, exact, seed=seed)
            for tokens, label in self._labelled(images, labels, batch_size)
        ]
        return torch.cat(parts).unflatten(1, self.generator.grid)

    def _classes(self, classes: Sequence[Label] | None) -> list[int]:
        """Indices of classes to choose from."""
        if classes is None:
            return list(range(self.generator.num_classes))
        indices = self.classes.indices(classes)
        if self.generator.num_classes in indices or len(set(indices)) < len(indices):
            raise ValueError(f"classes to choose from are different ones and no None, got {list(classes)}")
        return indices

    def _labelled(
        self, images: data.Images | Iterable[data.Picture], labels: Sequence[Label] | None, batch_size: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Tokens and class indices of images, batch after batch."""
        label, done = None if labels is None else self.label_indices(labels), 0
        for batch in data.batches(images, batch_size):
            tokens = self.encode(batch).cpu()
            own = self.label_indices([None] * len(tokens)) if label is None else label[done : done + len(tokens)]
            done += len(tokens)
            if len(own) < len(tokens):
                break
            yield tokens, own
        if label is not None and len(label) != done:
            raise ValueError(f"{len(label)} labels for {done} images or more: give one for each")


load = Pipeline.from_pretrained


def _map(model: Pipeline, spec: FeatureSpec, image: str, output: str, rows: Mapping[str, Any]) -> dict[str, np.ndarray]:
    if image not in rows:
        raise ValueError(f"there is no column {image!r}: name one of {', '.join(rows)}")
    if isinstance(rows[image], (Image.Image, str)):
        raise ValueError("this function reads batches of rows: give map(..., batched=True)")
    return {output: model.features(rows[image], spec, batch_size=len(rows[image]))}


def _check_control(control: data.Images | None, extrapolation: Extrapolation | None) -> None:
    if control is not None and extrapolation is not None:
        raise ValueError("a larger image than the trained one takes no control: leave it or extrapolation out")


def _for_each(conditions: Tensor, images: int) -> Tensor:
    """Condition images, one for all or one for each."""
    if len(conditions) not in (1, images):
        raise ValueError(f"{len(conditions)} control images for {images} images: give one for all or one for each")
    return conditions.expand(images, -1, -1, -1)


def _one_each(order: Tensor, images: int) -> Tensor:
    """Return an order (N,) or (B, N) as one for each image, (B, N)."""
    if order.ndim > 2 or (order.ndim == 2 and len(order) not in (1, images)):
        raise ValueError(f"orders of shape {tuple(order.shape)} for {images} images: give one for all or one for each")
    return order.expand(images, -1)
