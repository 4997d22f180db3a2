"""Tokenizer and generator together: what `load` returns, with pictures at both ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from . import data, editing, features, files, hub, likelihood, models, tokenizers, weights
from .features import FeatureSpec
from .models import Generator
from .sampling import Sampling
from .sampling import sample as draw_tokens
from .tokenizers import Tokenizer


class Pipeline(nn.Module):
    """A tokenizer with the generator of its tokens.

    Images are whatever `data.as_images` takes. class_names: one name for each class, else the indices as text.
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
        if not isinstance(class_names, str):
            class_names = list(class_names) or [str(i) for i in range(generator.num_classes)]
            if len(class_names) != generator.num_classes:
                raise ValueError(f"{len(class_names)} class names for {generator.num_classes} classes")
        self.tokenizer, self.generator = tokenizer, generator
        self.class_names, self.training_record = class_names, training or {}
        self.sampling = sampling or Sampling()
        self.eval()

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        h, w = self.generator.grid
        return h * self.tokenizer.stride, w * self.tokenizer.stride

    # pictures and tokens ---------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode(self, images: data.Images) -> Tensor:
        """Images -> tokens (B, N) in raster space."""
        pixels = data.as_images(images, self.tokenizer.channels, self.image_size)
        if tuple(pixels.shape[2:]) != self.image_size:
            h, w = self.image_size
            raise ValueError(f"images must be {h} x {w} pixels, got {pixels.shape[2]} x {pixels.shape[3]}")
        return self.tokenizer.encode(pixels.to(self.generator.device)).flatten(1)

    @torch.no_grad()
    def decode(self, tokens: Tensor) -> Tensor:
        """Tokens (B, N) -> images (B, channels, H, W) in [0, 1]."""
        return self.tokenizer.decode(tokens.unflatten(1, self.generator.grid))

    # four things to do with it ---------------------------------------------------------------------------------

    def features(self, images: data.Images, spec: str | FeatureSpec) -> np.ndarray:
        """Features of images as `spec` says: float32 (B, F), or (B, F, h, w) where its pool is `none`."""
        return features.read(self.generator, self.encode(images), [FeatureSpec.parse(spec)])[0].numpy()

    def sample(self, labels: Sequence[int | str | None], sampling: Sampling | None = None, seed: int = 0) -> Tensor:
        """One image for each label (index, name, or None): (B, channels, H, W) in [0, 1]. Image i has the seed `seed
        + i`.
        """
        seeds = torch.arange(seed, seed + len(labels))
        return self.decode(draw_tokens(self.generator, self.label_indices(labels), seeds, sampling or self.sampling))

    def inpaint(
        self,
        images: data.Images,
        mask: Tensor | np.ndarray,
        labels: Sequence[int | str | None] | None = None,
        sampling: Sampling | None = None,
        seed: int = 0,
    ) -> Tensor:
        """Draws the masked pixels anew, given the others, which come back bit for bit.

        mask: bool (H, W), True where to paint; a token with one masked pixel is drawn anew as a whole, its unmasked
        pixels are pasted back. Returns (B, channels, H, W) in [0, 1].
        """
        pixels = data.as_images(images, self.tokenizer.channels, self.image_size).to(self.generator.device)
        mask = torch.as_tensor(mask, dtype=torch.bool, device=pixels.device)
        if tuple(mask.shape) != self.image_size:
            raise ValueError(f"the mask must be {self.image_size} like the image, got {tuple(mask.shape)}")
        label = self.label_indices([None] * len(pixels) if labels is None else labels)
        if len(label) != len(pixels):
            raise ValueError(f"{len(label)} labels for {len(pixels)} images: give one for each")
        known = ~editing.token_mask(mask, self.tokenizer.stride).flatten()
        seeds = torch.arange(seed, seed + len(pixels))
        tokens = editing.complete(self.generator, self.encode(pixels), known, label, seeds, sampling or self.sampling)
        return editing.paste(pixels, self.decode(tokens), mask)

    def classify(self, images: data.Images, orders: int = 16, seed: int = 0) -> Tensor:
        """Mean over `orders` orders of log p(image | class), in nats: float32 (B, num_classes)."""
        return likelihood.class_log_prob(self.generator, self.encode(images), None, orders, seed=seed).mean(-1)

    def label_indices(self, labels: Sequence[int | str | None]) -> Tensor:
        """Class indices (B,) of labels given by index, by name, or as None (the null class)."""
        return torch.tensor([self._label_index(label) for label in labels], dtype=torch.int64)

    def _label_index(self, label: int | str | None) -> int:
        count = self.generator.num_classes
        if label is None:
            return count
        if isinstance(label, str):
            if label not in self.class_names:
                raise ValueError(f"unknown class {label!r}, expected one of {', '.join(self.class_names[:10])}")
            return self.class_names.index(label)
        if not 0 <= label < count:
            raise ValueError(
                f"class {label} is outside 0..{count - 1}" if count else "this model has no classes: use None"
            )
        return int(label)

    # on disk ---------------------------------------------------------------------------------------------------

    def save(self, directory: str | Path) -> None:
        """Writes a model directory; one of the same name is replaced as a whole."""
        config = {
            "randfeat": version("randfeat"),
            "generator": {"name": models.name_of(self.generator), **self.generator.config},
            "class_names": self.class_names,
            "training": self.training_record,
            "sampling": asdict(self.sampling),
        }
        tokenizer = {"name": tokenizers.name_of(self.tokenizer), **self.tokenizer.config}
        with files.new_directory(Path(directory), weights.CONFIG) as made:
            (made / weights.TOKENIZER).mkdir()
            weights.write(made, config, self.generator.state_dict())
            weights.write(made / weights.TOKENIZER, tokenizer, self.tokenizer.state_dict())

    def save_pretrained(self, directory: str | Path) -> None:
        """`save`, under the name that the Hugging Face hub's tools expect."""
        self.save(directory)

    @classmethod
    def from_pretrained(cls, source: str | Path, **options: Any) -> Pipeline:
        """`randfeat.load`, under the name that the Hugging Face hub's tools expect."""
        from .loading import load  # which stands above this module

        return load(source, **options)

    def push_to_hub(self, repository: str, private: bool | None = None, token: str | None = None) -> str:
        """Uploads what `save` writes to owner/name on the Hugging Face hub, from where `randfeat.load` opens it.

        The repository is made if need be. token: by default that of `hf auth login`. Returns the address.
        """
        return hub.push(self, repository, private, token)
