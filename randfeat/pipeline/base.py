"""Base of the pipeline: images to tokens and features and back, and models from and to the disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from .. import models, tokenizers, weights
from ..data import conditions
from ..data.decode import RANGES
from ..data.errors import OnError
from ..data.images import Images, Picture, as_images, batches
from ..data.labels import Classes, Label
from ..data.reading import ReadBatches
from ..data.values import described, from_unit
from ..inference import readout
from ..inference.readout import FeatureSpec, sub_patch_shifts
from ..inference.sampling import Sampling
from ..models import Generator, orders, packed
from ..tokenizers import Tokenizer
from ..utils import atomic
from ..utils.checks import check_whole_number
from ..weights import hub
from ..weights.fresh import open_parts
from . import mapping
from .copies import InferenceCopies

BATCH = 64  # images at a time
Opened = TypeVar("Opened", bound="BasePipeline")


class BasePipeline(nn.Module):
    """A tokenizer with the generator of its tokens.

    Images are all that `as_images` takes. class_names: one name for each class, else the indices as text, or
    "imagenet-1k" (see `labels.Classes`). training: how the generator was trained, kept for the record. sampling,
    features: how to sample, and the feature spec to read with, where a call does not say; the spec of the generator's
    class where there is none.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        generator: Generator,
        class_names: str | Sequence[str] = (),
        training: dict[str, Any] | None = None,
        sampling: Sampling | None = None,
        features: str | FeatureSpec | None = None,
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
        self.own_spec = None if features is None else FeatureSpec.parse(features)
        self._copies = InferenceCopies()
        self.eval()

    def inference_generator(self) -> Generator:
        """Return the generator for use without gradients: on a CPU an inference copy with prepacked weights, which take
        as much memory once more, and are kept until those of the generator change.
        """
        return self._copies.prepacked(self.generator)

    def compile(self, batch_size: int = BATCH) -> None:
        """Compute features through torch's compiler from now on, always of `batch_size` images at a time.

        Smaller batches, the last one too, are filled up to that, so that one program for each kind of layer serves all.
        The first call of each kind of pass takes a minute or more. It is for GPUs: on a CPU, in float32, prepacked
        weights are faster (`docs/guides/extract.md`).
        """
        check_whole_number("batch_size", batch_size, 1)
        self._copies.compiled, self._copies.images = packed.compiled_copy(self.generator), batch_size

    def feature_generator(self) -> Generator:
        """Return the generator that computes features: `inference_generator`, or after `compile` the compiled copy."""
        return self._copies.compiled or self.inference_generator()

    def __sklearn_clone__(self) -> BasePipeline:
        """Return the pipeline itself: scikit-learn's clone of an estimator shares its model."""
        return self

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        h, w = self.generator.grid
        return h * self.tokenizer.stride, w * self.tokenizer.stride

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, one for each."""
        return self.classes.names

    # images ----------------------------------------------------------------------------------------------------

    def as_images(self, images: Images) -> Tensor:
        """Return images as the tokenizer takes them: floats (B, channels, H, W) in [0, 1] of `image_size`.

        Where the tokenizer has a `value_range`, images are files, arrays and tensors of values in that range, integers
        or floats, and not in [0, 1]; see `images.as_images`.
        """
        return as_images(images, self.tokenizer.channels, self.image_size, self.tokenizer.value_range)

    def in_range(self, images: Tensor) -> np.ndarray:
        """Return images (B, channels, H, W) in [0, 1], such as samples, as values (B, H, W, channels) as in files.

        They have the tokenizer's `value_range`, 0 to 255 by default, and the type for which it is natural: uint8 for 0
        to 255, uint16 for 0 to 65535, else float32.
        """
        return from_unit(images, self.tokenizer.value_range or RANGES["uint8"])

    def check_reads_pictures(self, what: str) -> None:
        """Raise a ValueError where the model reads values of another range or other channels than pictures have.

        what: subject of the sentence.
        """
        if self.tokenizer.value_range is not None:
            kind = described(self.tokenizer.channels, self.tokenizer.value_range)
            raise ValueError(f"{what} takes pictures of 8 bits, and this model reads {kind}: give another model")

    # tokens ----------------------------------------------------------------------------------------------------

    def encode(self, images: Images, shifts: int = 1) -> Tensor:
        """Return the tokens of one batch of images, on the model's device: int64 (B, N) in raster space, or with more
        shifts (B, shifts², N), see `readout.sub_patch_shifts`.
        """
        return self.encode_pixels(self.as_images(images).to(self.generator.device), shifts)

    @torch.no_grad()
    def encode_pixels(self, pixels: Tensor, shifts: int = 1) -> Tensor:
        """Return the tokens of pixels (B, channels, H, W) in [0, 1] of `image_size`, on the model's device."""
        if shifts == 1:
            return self.tokenizer.encode(pixels).flatten(1)
        places = sub_patch_shifts(pixels, self.tokenizer.stride, shifts)
        return self.tokenizer.encode(places.flatten(0, 1)).flatten(1).unflatten(0, places.shape[:2])

    def tokens(self, images: Images | Iterable[Picture], batch_size: int = BATCH, progress: bool = False) -> np.ndarray:
        """Return the tokens of any number of images: (B, N) in raster space, uint16, or uint32 where the codebook needs
        it. progress: show a bar.
        """
        kind = np.uint16 if self.tokenizer.vocab_size <= 1 << 16 else np.uint32
        parts = batches(images, batch_size, "encoding" if progress else None)
        return np.concatenate([self.encode(batch).cpu().numpy().astype(kind) for batch in parts])

    def labelled_tokens(self, reading: ReadBatches, labels: Sequence[Label] | None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield tokens and class indices of images, batch after batch.

        labels: one for each image, those that cannot be read too; None for the null class.
        """
        label = None if labels is None else self.label_indices(labels)
        for pixels in reading:
            if label is not None and reading.total > len(label):
                break
            tokens = self.encode_pixels(pixels.to(self.generator.device)).cpu()
            yield tokens, self.label_indices([None] * len(tokens)) if label is None else label[reading.here]
        if label is not None and len(label) != reading.total:
            raise ValueError(f"{len(label)} labels for {reading.total} images or more: give one for each")

    @torch.no_grad()
    def decode(self, tokens: Tensor, grid: orders.Grid | None = None) -> Tensor:
        """Return the images of tokens (B, N): (B, channels, H, W) in [0, 1].

        grid: rows and columns, by default the trained ones. With a generator in bfloat16 pixels are computed in it too,
        which is faster; tokens of an image never are.
        """
        h, w = grid or self.generator.grid
        tokens = torch.as_tensor(tokens)
        if tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool:
            raise ValueError(f"tokens are whole numbers, got {tokens.dtype}")
        tokens, last = tokens.long(), self.tokenizer.vocab_size - 1
        # elsewhere the host would wait for the device
        if tokens.device.type == "cpu" and ((tokens < 0) | (tokens > last)).any():
            raise ValueError(f"tokens are from 0 to {last}, got {int(tokens.min())} to {int(tokens.max())}")
        if tokens.ndim != 2 or tokens.shape[1] != h * w:
            raise ValueError(f"the grid {h} x {w} takes tokens (B, {h * w}), got {tuple(tokens.shape)}")
        half = self.generator.dtype == torch.bfloat16
        with torch.autocast(tokens.device.type, torch.bfloat16, enabled=half):
            return self.tokenizer.decode(tokens.unflatten(1, (h, w)))

    # features --------------------------------------------------------------------------------------------------

    def features(
        self,
        images: Images | Iterable[Picture],
        spec: str | FeatureSpec | None = None,
        batch_size: int = BATCH,
        progress: bool = False,
        on_error: OnError = "raise",
    ) -> np.ndarray:
        """Return the features of images, float32 (B, F), or (B, F, h, w) of pool `none`.

        spec: a feature spec, by default the model's own. Any number of images, of an iterator too: `batch_size` of them
        are held at a time. progress: show a bar. on_error: "skip" gives an image that cannot be read NaN, and a warning
        with path and reason; a function is called with these, see `data.errors.OnError`.
        """
        resolved = self.resolve_spec(spec)
        reading = ReadBatches(images, batch_size, self.as_images, on_error, "features" if progress else None)
        found = [self.features_of_pixels(pixels.to(self.generator.device), [resolved])[0] for pixels in reading]
        return reading.aligned(np.concatenate(found))

    @torch.no_grad()
    def features_of_pixels(self, pixels: Tensor, specs: Sequence[FeatureSpec]) -> list[np.ndarray]:
        """Return for each spec the features, as `features`, of one batch of prepared images.

        pixels: floats (B, channels, H, W) in [0, 1] of `image_size`, on the model's device. specs: as `resolve_spec`
        returns them; those with the same shifts share the tokenizer, and passes where they can.
        """
        found: dict[FeatureSpec, np.ndarray] = {}
        for shifts in dict.fromkeys(spec.shifts for spec in specs):
            group = [spec for spec in specs if spec.shifts == shifts]
            features = self.features_of_tokens(self.encode_pixels(pixels, shifts), group)
            found.update((spec, values.numpy()) for spec, values in zip(group, features, strict=True))
        return [found[spec] for spec in specs]

    def features_of_tokens(self, tokens: Tensor, specs: Sequence[FeatureSpec]) -> list[Tensor]:
        """Return for each spec the features of tokens in raster space, see `readout.read`."""
        return readout.read(self.feature_generator(), tokens, specs, images=self._copies.images)

    def resolve_spec(self, spec: str | FeatureSpec | None = None) -> FeatureSpec:
        """Return a feature spec with layers as numbers, the model's own for None.

        Raises a ValueError for what the model cannot do.
        """
        chosen = spec if spec is not None else self.own_spec
        parsed = readout.default(self.generator) if chosen is None else FeatureSpec.parse(chosen)
        if parsed.shifts > self.tokenizer.stride:
            raise ValueError(f"feature spec {parsed}: a token of {self.tokenizer.stride} pixels has no more shifts")
        return readout.check(self.generator, parsed)

    def as_map_fn(
        self,
        spec: str | FeatureSpec | None = None,
        image: str = "image",
        output: str = "features",
        on_error: OnError = "raise",
    ) -> Callable[[Mapping[str, Any]], dict[str, np.ndarray]]:
        """Return a function for `map` of Hugging Face's datasets: `dataset.map(model.as_map_fn(), batched=True)`.

        It takes the column `image` and adds the column `output`, float32. One call of it is one batch: map's
        `batch_size`. datasets finds its cache by a hash over the function, so over the weights, which takes seconds for
        a gigabyte; `map(..., new_fingerprint=...)` spares that. Leave `num_proc` out: one process keeps all cores busy,
        and forks of a process that has computed may deadlock.

        on_error: as in `features`. datasets itself fails at a damaged image before this function sees it, unless the
        column holds paths or is left undecoded: `dataset.cast_column("image", datasets.Image(decode=False))`.
        """
        return partial(mapping.features_of_rows, self, self.resolve_spec(spec), image, output, on_error)

    # labels and conditions -------------------------------------------------------------------------------------

    def conditions(self, images: Images, kind: str | None = None) -> Tensor:
        """Return the condition images that the control of the generator takes: (B, c, H, W) in [0, 1].

        kind: by default the kind that it was trained with, which is computed from the images; "image" for images that
        are conditions themselves.
        """
        kind = self.condition_kind(kind)
        if kind != conditions.GIVEN:
            return conditions.make(self.as_images(images), kind)
        return conditions.make(as_images(images, self.channels_for(kind), self.image_size), kind)

    def condition_kind(self, kind: str | None = None) -> str:
        """Return the kind of condition to make of images for this generator. Raises a ValueError where it has none."""
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
        """Return the number of channels of images from which conditions of a kind are made."""
        return self.generator.config["control"]["channels"] if kind == conditions.GIVEN else self.tokenizer.channels

    def label_indices(self, labels: Sequence[Label]) -> Tensor:
        """Return the class indices of labels given by index, by name, or as None (the null class): int64 (B,)."""
        return torch.tensor(self.classes.indices(labels), dtype=torch.int64)

    @torch.no_grad()
    def condition_tokens(self, condition_images: Tensor) -> Tensor:
        """Return the condition tokens of condition images, as `conditions` returns them: (B, N, D)."""
        generator = self.inference_generator()
        assert generator.control is not None  # `conditions` has looked
        return generator.control(condition_images.to(generator.device))

    # on disk ---------------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(
        cls: type[Opened],
        source: str | Path,
        *,
        num_heads: int | None = None,
        grid: tuple[int, int] | None = None,
        tokenizer: str | Path | Tokenizer | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
    ) -> Opened:
        """Open a model, strictly, and run nothing in its files as code. `randfeat.load` is this method.

        source: a directory that `save` wrote; the path of an official .safetensors, .pt or .bin file; a model of the
            package, such as "fashion-arpg-free" (`weights.zoo.NAMES`); a short name of `weights.published.MODELS`, such
            as "randar-l-llamagen"; or the id owner/name of a repository on the Hugging Face hub that `push_to_hub`
            wrote. A path that exists goes before a name. "random:" before any of these gives the generator random
            weights, to compare with.
        num_heads: attention heads, which official files do not tell. Needed where the size is not a published one.
        grid: rows and columns of tokens, which they do not tell either; by default those of the published model of this
            size and file name, else 16 x 16.
        tokenizer: for official files, what `load_tokenizer` takes, or one that is open, which is moved to the device;
            by default the published one with as many codes, from the hub.
        device: "auto" takes CUDA, else Apple's MPS, else the CPU.
        dtype: what the generator's weights are converted to. The tokenizer stays float32: in half precision it would
            choose other tokens.
        seed: of the random weights of "random:".

        Raises a FileNotFoundError, ConnectionError or ValueError of one sentence.
        """
        how: dict[str, Any] = dict(num_heads=num_heads, grid=grid, tokenizer=tokenizer, device=device, dtype=dtype)
        parts = open_parts(source, seed, **how)
        return cls(parts.tokenizer, parts.generator, parts.class_names, parts.training, parts.sampling, parts.features)

    def record(self) -> dict[str, Any]:
        """Return all of the model that decides its numbers, as JSON: configurations, dtype and hash of the weights."""
        return {
            "generator": {"name": models.name_of(self.generator), **self.generator.config},
            "tokenizer": {"name": tokenizers.name_of(self.tokenizer), **self.tokenizer.config},
            "dtype": str(self.generator.dtype).removeprefix("torch."),
            "weights": weights.fingerprint(self.generator, self.tokenizer),
        }

    def made_with(self) -> dict[str, str]:
        """Return versions and device, for the settings of what the model makes."""
        versions = {name: version(name) for name in ("randfeat", "torch")}
        return versions | {"device": str(self.generator.device)}

    def save(self, directory: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write a model directory; one of the same name is replaced as a whole.

        dtype: of the generator's weights on disk, by default the one they have; float16 halves the file, and opening it
        makes float32 of it again. The tokenizer keeps its own: rounded codes would choose other tokens. Raises a
        ValueError where a weight does not fit into the type.
        """
        state = weights.converted(self.generator.state_dict(), dtype)
        config = {
            "randfeat": version("randfeat"),
            "generator": {"name": models.name_of(self.generator), **self.generator.config},
            "class_names": self.classes.given,
            "training": self.training_record,
            "sampling": self.sampling.as_dict(),
            **({} if self.own_spec is None else {"features": str(self.own_spec)}),
        }
        tokenizer = {"name": tokenizers.name_of(self.tokenizer), **self.tokenizer.config}
        with atomic.replace_directory(Path(directory), weights.is_model) as made:
            (made / weights.TOKENIZER).mkdir()
            weights.write(made, config, state)
            weights.write(made / weights.TOKENIZER, tokenizer, self.tokenizer.state_dict())

    def save_pretrained(self, directory: str | Path, dtype: torch.dtype | None = None) -> None:
        """`save`, under the name that the Hugging Face hub's tools expect."""
        self.save(directory, dtype)

    def push_to_hub(self, repository: str, private: bool | None = None, token: str | None = None) -> str:
        """Upload what `save` writes to owner/name on the Hugging Face hub, from where `randfeat.load` opens it.

        The repository is made if need be. token: by default that of `hf auth login`. Returns the address.
        """
        return hub.push(self.save, repository, private, token)
