"""A tokenizer with the generator of its tokens: pictures to tokens and back, in memory and on disk."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import models, tokenizers, weights
from ..data import conditions
from ..data import images as data
from ..data.labels import Classes, Label
from ..inference.readout import sub_patch_shifts
from ..inference.sampling import Sampling
from ..models import Generator, orders, packed
from ..tokenizers import Tokenizer
from ..utils import atomic
from ..weights import hub


class BasePipeline(nn.Module):
    """A tokenizer with the generator of its tokens.

    Images are whatever `data.as_images` takes. class_names: one name for each class, else the indices as text, or
    "imagenet-1k" (see `classes.Classes`).
    training: how the generator was trained, kept with it for the record. sampling: how to sample where a call does not
    say.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        generator: Generator,
        class_names: str | Sequence[str] = (),
        training: dict[str, Any] | None = None,
        sampling: Sampling | None = None,
    ) -> None:
        super().__init__()
        if tokenizer.vocab_size != generator.vocab_size:
            raise ValueError(
                f"the tokenizer has {tokenizer.vocab_size} codes, the generator {generator.vocab_size}: "
                "they were not made for each other"
            )
        self.tokenizer, self.generator = tokenizer, generator
        self.classes = Classes(class_names, generator.num_classes)
        self.training_record = training or {}
        self.sampling = sampling or Sampling()
        self._packed: tuple[list, Generator] | None = None
        self._compiled: Generator | None = None
        self.eval()

    def packed(self) -> Generator:
        """Return the generator for reading and writing without gradients: on a CPU with packed weights, see `packing`.
        They take as much memory once more, and are kept until those of the generator change.
        """
        if not packed.can_prepack(self.generator):
            return packed.inference_copy(self.generator)
        seen = packed.signature(self.generator)
        if self._packed is None or self._packed[0] != seen:
            self._packed = seen, packed.inference_copy(self.generator)
        return self._packed[1]

    def compile(self) -> None:
        """From now on features are read through torch's compiler, which takes a minute or more at the first call of
        each kind of reading. It is for GPUs: on a CPU, in float32, packed weights are faster (`benchmarks/README.md`).
        """
        vars(self)["_compiled"] = packed.compiled_copy(self.generator)  # past nn.Module, which would make it a part

    def reader(self) -> Generator:
        """Return the generator that reads features: `packed`, unless it was asked to `compile`."""
        return self._compiled or self.packed()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_packed": None, "_compiled": None}  # packed weights stay in their process

    def __sklearn_clone__(self) -> BasePipeline:
        """scikit-learn's clone of an estimator shares the model that it was given."""
        return self

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        h, w = self.generator.grid
        return h * self.tokenizer.stride, w * self.tokenizer.stride

    @property
    def class_names(self) -> list[str]:
        """One for each class."""
        return self.classes.names

    # pictures and tokens ---------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode(self, images: data.Images, shifts: int = 1) -> Tensor:
        """Return the tokens of images: int64 (B, N) in raster space, or with more shifts (B, shifts², N), see
        `readout.sub_patch_shifts`.
        """
        pixels = data.as_images(images, self.tokenizer.channels, self.image_size)
        if tuple(pixels.shape[2:]) != self.image_size:
            h, w = self.image_size
            raise ValueError(f"images must be {h} x {w} pixels, got {pixels.shape[2]} x {pixels.shape[3]}")
        return self.encode_pixels(pixels.to(self.generator.device), shifts)

    def encode_pixels(self, pixels: Tensor, shifts: int = 1) -> Tensor:
        """Return the same of images (B, channels, H, W) in [0, 1] of the right size, on the right device."""
        if shifts == 1:
            return self.tokenizer.encode(pixels).flatten(1)
        places = sub_patch_shifts(pixels, self.tokenizer.stride, shifts)
        return self.tokenizer.encode(places.flatten(0, 1)).flatten(1).unflatten(0, places.shape[:2])

    @torch.no_grad()
    def decode(self, tokens: Tensor, grid: orders.Grid | None = None) -> Tensor:
        """Tokens (B, N) -> images (B, channels, H, W) in [0, 1]. grid: rows and columns, by default the trained ones.

        With a generator in bfloat16 pixels are computed in it too, which is faster; tokens of an image never are.
        """
        h, w = grid or self.generator.grid
        if tokens.ndim != 2 or tokens.shape[1] != h * w:
            raise ValueError(f"the grid {h} x {w} takes tokens (B, {h * w}), got {tuple(tokens.shape)}")
        half = self.generator.dtype == torch.bfloat16
        with torch.autocast(tokens.device.type, torch.bfloat16, enabled=half):
            return self.tokenizer.decode(tokens.unflatten(1, (h, w)))

    def conditions(self, images: data.Images, kind: str | None = None) -> Tensor:
        """What the control of the generator is shown of images: (B, c, H, W) in [0, 1].

        kind: by default what it was trained with, which is computed from the images; "image" for pictures that are
        conditions themselves, which are taken as they are.
        """
        kind = self.condition_kind(kind)
        return conditions.make(data.as_images(images, self.channels_for(kind), self.image_size), kind)

    def condition_kind(self, kind: str | None = None) -> str:
        """Return the kind of condition to make of a picture for this generator; a ValueError where there is none."""
        if self.generator.control is None:
            raise ValueError(
                "this model has no control: train one (`randfeat pretrain --control`), or leave control out"
            )
        own: str = self.generator.config["control"]["kind"]
        if kind not in (None, own, conditions.GIVEN):
            raise ValueError(
                f"this model is controlled by {own}, not by {kind}: leave the type out, "
                f"or say {conditions.GIVEN} where the pictures are {own} themselves"
            )
        return kind or own

    def channels_for(self, kind: str) -> int:
        """Of pictures that conditions of that kind are made of: those of the condition, where they are such."""
        return self.generator.config["control"]["channels"] if kind == conditions.GIVEN else self.tokenizer.channels

    def label_indices(self, labels: Sequence[Label]) -> Tensor:
        """Class indices (B,) of labels given by index, by name, or as None (the null class)."""
        return torch.tensor(self.classes.indices(labels), dtype=torch.int64)

    # on disk ---------------------------------------------------------------------------------------------------

    def save(self, directory: str | Path) -> None:
        """Write a model directory; one of the same name is replaced as a whole."""
        config = {
            "randfeat": version("randfeat"),
            "generator": {"name": models.name_of(self.generator), **self.generator.config},
            "class_names": self.classes.given,
            "training": self.training_record,
            "sampling": self.sampling.as_dict(),
        }
        tokenizer = {"name": tokenizers.name_of(self.tokenizer), **self.tokenizer.config}
        with atomic.replace_directory(Path(directory), weights.is_model) as made:
            (made / weights.TOKENIZER).mkdir()
            weights.write(made, config, self.generator.state_dict())
            weights.write(made / weights.TOKENIZER, tokenizer, self.tokenizer.state_dict())

    def save_pretrained(self, directory: str | Path) -> None:
        """`save`, under the name that the Hugging Face hub's tools expect."""
        self.save(directory)

    def push_to_hub(self, repository: str, private: bool | None = None, token: str | None = None) -> str:
        """Upload what `save` writes to owner/name on the Hugging Face hub, from where `randfeat.load` opens it.

        The repository is made if need be. token: by default that of `hf auth login`. Returns the address.
        """
        return hub.push(self.save, repository, private, token)
