"""Text-image models of open_clip as encoders: pictures and texts in one space (CLIP, arXiv 2103.00020)."""

from __future__ import annotations

import difflib
import importlib.util
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from .. import weights
from ..data.decode import as_seen
from ..utils import devices, network
from ..weights import hub
from .encoder import EMBEDDING, OPEN_CLIP, Encoder

CONFIG = "open_clip_config.json"  # of a directory that open_clip has saved a model in
FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")  # of weights, in a repository of the hub
PREPROCESSING = ("mean", "std", "interpolation", "resize_mode")
SAID = 160  # characters of a library's reason that an error repeats


@dataclass(frozen=True)
class EvaluationTransform:
    """Evaluation transform of a model of open_clip without its normalisation: upright picture to uint8 (3, h, w).

    config: of `open_clip.transform.PreprocessCfg`.
    """

    config: dict[str, Any]

    def __post_init__(self) -> None:
        every = open_clip.transform.image_transform_v2(open_clip.transform.PreprocessCfg(**self.config), is_train=False)
        *kept, _, _ = every.transforms  # the last two make floats and normalise them, which is left to the device
        object.__setattr__(self, "_transforms", kept)

    def __call__(self, picture: Image.Image) -> np.ndarray:
        seen = as_seen(picture).convert("RGB")
        for transform in self._transforms:  # type: ignore[attr-defined]
            seen = transform(seen)
        return np.moveaxis(np.asarray(seen), -1, 0)

    def __str__(self) -> str:
        said = ", ".join(f"{name} {value}" for name, value in sorted(self.config.items()))
        return f"open_clip's evaluation transform ({said})"


class OpenClipEncoder(Encoder):
    """Embeddings of pictures, and of texts, by a text-image model of open_clip: vectors of length 1 in one space.

    model: of `open_clip.create_model`. config: its architecture, as JSON. open_tokenizer: makes the tokenizer of its
    texts, when the first text is encoded. specs: `embedding`, the only one there is. Raises a ValueError for others.
    """

    reads_texts = True

    def __init__(
        self,
        model: Any,
        config: dict[str, Any],
        open_tokenizer: Callable[[], Any],
        name: str,
        specs: Sequence[str] = (),
    ) -> None:
        if [*specs] not in ([], [EMBEDDING]):
            raise ValueError(f"{name} has the one feature spec {EMBEDDING}, which texts share: leave {specs[0]} out")
        self.model, self.name, self.specs = model.eval(), name, (EMBEDDING,)
        self._config, self._open_tokenizer = config, open_tokenizer
        settings = model.visual.preprocess_cfg  # with lists where they were read from JSON
        self._transform = EvaluationTransform({k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()})
        self.prepare = self._transform
        parameter = next(model.parameters())
        self._mean, self._std = (
            torch.tensor(self._transform.config[name], device=parameter.device)[:, None, None]
            for name in ("mean", "std")
        )
        self.dtype = parameter.dtype

    @torch.no_grad()
    def encode(self, batch: Tensor) -> list[np.ndarray]:
        """Return the embeddings of pictures, uint8 (B, 3, h, w): one array (B, F) of vectors of length 1."""
        pixels = ((batch.to(self._mean.device).float() / 255 - self._mean) / self._std).to(self.dtype)
        return [self._unit(self.model.encode_image(pixels, normalize=False))]

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return the embeddings of texts: (n, F), vectors of length 1.

        Raises a ValueError for an empty text, or one of more tokens than the model reads, and a RuntimeError or a
        ConnectionError where the tokenizer needs a package or files that are not there.
        """
        for text in texts:
            if not text.strip():
                raise ValueError("a text is empty: say what the pictures show")
        length = self._tokenizer.context_length
        tokens = self._tokenizer([*texts, ""], 2 * length)  # beside the empty text, whose end shows the padding
        for text, row in zip(texts, tokens, strict=False):
            if (row[length:-1] != tokens[-1, length:-1]).any():
                said = f"{text[:40]}..." if len(text) > 40 else text
                raise ValueError(f"{self.name} reads {length} tokens of a text, and {said!r} has more: shorten it")
        tokens = self._tokenizer(list(texts), length).to(self._mean.device)
        return self._unit(self.model.encode_text(tokens, normalize=False))

    @cached_property
    def _tokenizer(self) -> Any:
        return self._open_tokenizer()

    def _unit(self, features: Tensor) -> np.ndarray:
        return F.normalize(features.float(), dim=-1).cpu().numpy()

    def with_specs(self, specs: Sequence[str]) -> OpenClipEncoder:
        return OpenClipEncoder(self.model, self._config, lambda: self._tokenizer, self.name, specs)

    def dense(self) -> Encoder:
        raise ValueError(f"{self.name} has one vector of a picture and no map: choose a model of timm or of randfeat")

    def record(self) -> dict[str, Any]:
        return {
            "model": OPEN_CLIP.removesuffix(":"),
            "config": self._config,
            "preprocessing": str(self._transform),
            "specs": [*self.specs],
            "dtype": str(self.dtype).removeprefix("torch."),
            "weights": weights.fingerprint(self.model),
        }


def open_model(
    source: str, specs: Sequence[str], device: str | torch.device, dtype: torch.dtype, fresh: bool = False
) -> OpenClipEncoder:
    """Return an encoder of a text-image model of open_clip.

    source: NAME@FILE, an architecture of open_clip with the weights of a file, as its authors or open_clip's training
    wrote it; NAME/TAG, the weights that open_clip publishes under a tag; NAME/TAG@FILE, those of a file with the
    preprocessing and the activation of the tag; or a directory that open_clip has saved a model in. fresh: random
    weights in place of any.

    Raises a FileNotFoundError, ConnectionError, RuntimeError or ValueError of one sentence.
    """
    device = devices.pick(device)
    if Path(source).is_dir():
        found = _from_directory(Path(source), fresh)
    else:
        said, _, file = source.partition("@")
        found = _from_name(*said.partition("/")[::2], file, fresh)
    model, config, open_tokenizer = found
    return OpenClipEncoder(model.to(device, dtype), config, open_tokenizer, f"{OPEN_CLIP}{source}", specs)


def _from_directory(directory: Path, fresh: bool) -> tuple[Any, dict[str, Any], Callable[[], Any]]:
    """Return model, configuration and opener of the tokenizer of a directory that open_clip has saved a model in."""
    try:
        config = json.loads((directory / CONFIG).read_text("utf-8"))["model_cfg"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(
            f"{directory} is no model of open_clip, it has no {CONFIG} with a model_cfg: "
            f"give the file of weights with its architecture, {OPEN_CLIP}NAME@FILE"
        ) from None
    name = f"local-dir:{directory}"
    with _explained(f"the model in {directory}", config):
        model = open_clip.create_model(
            name, load_weights=not fresh, require_pretrained=not fresh, pretrained_text=False
        )
    return model, config, lambda: _open_tokenizer(name, config)


def _from_name(name: str, tag: str, file: str, fresh: bool) -> tuple[Any, dict[str, Any], Callable[[], Any]]:
    """Return model, configuration and opener of the tokenizer of an architecture of open_clip."""
    known = open_clip.list_models()
    if name not in known:
        raise ValueError(
            f"open_clip has no model {name!r}, and there is no such directory: "
            f"{_suggestion(name, known, 'open_clip.list_models() lists its names')}"
        )
    settings = _settings(name, tag)
    path = None
    if not fresh:
        path = Path(file) if file else _published(name, tag)
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}: check the path")
    config = open_clip.get_model_config(name) | ({"quick_gelu": True} if settings.get("quick_gelu") else {})
    with _explained(f"{path}, weights of {name}," if path else name, config):
        model = open_clip.create_model(
            name,
            None if path is None else str(path.resolve()),
            force_quick_gelu=bool(settings.get("quick_gelu")),
            force_preprocess_cfg={key: settings[key] for key in PREPROCESSING if key in settings},
            pretrained_text=False,
        )
    return model, config, lambda: _open_tokenizer(name, config)


def _settings(name: str, tag: str) -> dict[str, Any]:
    """Return open_clip's settings of a tag; without one the preprocessing that all tags of the name share.

    Raises a ValueError where they differ, since a file of weights does not say which it needs.
    """
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag:
        if not open_clip.is_pretrained_cfg(name, tag):
            listed = f"it has {', '.join(tags) or 'none'}"
            raise ValueError(f"open_clip has no weights {tag!r} of {name}: {_suggestion(tag, tags, listed)}")
        return open_clip.get_pretrained_cfg(name, tag)
    every = [open_clip.get_pretrained_cfg(name, one) for one in tags]
    kinds = {str([one.get(key) for key in PREPROCESSING]): one for one in every}
    if len(kinds) > 1:
        raise ValueError(
            f"weights of {name} differ in their preprocessing, which a file does not say: give the tag of yours, or of "
            f"those that they were trained from, {OPEN_CLIP}{name}/TAG@FILE, one of {', '.join(tags)}"
        )
    return {key: one[key] for one in kinds.values() for key in PREPROCESSING if key in one}


def _published(name: str, tag: str) -> Path:
    """Return the file of published weights in the cache of huggingface_hub, downloaded if need be."""
    if not tag:
        raise ValueError(
            f"{OPEN_CLIP}{name} says no weights: give those of a file, {OPEN_CLIP}{name}@FILE, or the tag of published "
            f"ones, {OPEN_CLIP}{name}/TAG"
        )
    config = open_clip.get_pretrained_cfg(name, tag)
    repository, _, file = config.get("hf_hub", "").rpartition("/")
    if not repository:
        raise ValueError(
            f"the weights {tag} of {name} are not on the hub: download {config.get('url')}, and give "
            f"{OPEN_CLIP}{name}/{tag}@FILE"
        )
    files = (file,) if file else FILES
    if there := next(filter(None, (hub.cached(repository, one) for one in files)), None):
        return there
    try:
        return hub.fetch(repository, files[0])
    except FileNotFoundError:
        return hub.fetch(repository, files[-1])


def _open_tokenizer(name: str, config: dict[str, Any]) -> Any:
    """Return the tokenizer of a model's texts; most are in the package, those of the hub may have to be downloaded."""
    source = config["text_cfg"].get("hf_tokenizer_name")
    if source is None and "siglip" not in name.lower():
        return open_clip.get_tokenizer(name)
    _need_transformers(f"texts of {name}")
    with hub.explained(source or name, "the tokenizer"):
        return open_clip.get_tokenizer(name)


def _need_transformers(what: str) -> None:
    if importlib.util.find_spec("transformers") is None:
        raise RuntimeError(f"{what} need the package transformers: pip install transformers sentencepiece")


@contextmanager
def _explained(what: str, config: dict[str, Any]) -> Iterator[None]:
    """Turn errors of open_clip, of many types and long texts, into one sentence; leave out its notes of random weights.

    config: of the model, which may ask for a text network of transformers, and that for its settings on the hub.
    """
    needs_hub = "hf_model_name" in config["text_cfg"]
    if needs_hub:
        _need_transformers(what)
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        if needs_hub:
            with network.hub_or_cache():
                yield
        else:
            yield
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        reason = lines[1] if len(lines) > 1 and lines[0].startswith("Error(s) in loading") else lines[0]
        reason = reason.partition(". ")[0]
        reason = reason if len(reason) <= SAID else f"{reason[:SAID]}..."
        raise ValueError(f"{what} cannot be opened by open_clip ({reason}): check the name and the file") from None
    finally:
        logging.disable(before)


def _suggestion(asked: str, known: Sequence[str], otherwise: str) -> str:
    near = difflib.get_close_matches(asked, known, 3)
    return f"did you mean {' or '.join(near)}?" if near else otherwise
