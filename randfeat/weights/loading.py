"""Opening of models and tokenizers from any source: a directory, an official file, a published name, the hub.

`Pipeline.from_pretrained` makes a pipeline of the parts that are returned here.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from .. import models, tokenizers, weights
from ..data.labels import Classes
from ..inference import readout
from ..inference.readout import FeatureSpec
from ..inference.sampling import Sampling
from ..models import Generator
from ..tokenizers import Tokenizer
from ..utils import atomic, devices, missing
from ..utils.checks import check_whole_number
from . import checkpoints, hub, published, zoo
from .hub import Repository
from .identify import Identity, compared_by_angle, identify
from .published import PublishedModel, PublishedTokenizer

GRID = (16, 16)  # of tokens, where nothing says otherwise
Row = TypeVar("Row")


@dataclass(frozen=True)
class ModelParts:
    """A tokenizer and the generator of its tokens, both open, with what is recorded beside them.

    class_names: one name for each class, or none, or "imagenet-1k" (see `labels.Classes`). training: how the generator
    was trained. sampling, features: how to sample, and the feature spec to read with, by default.
    """

    tokenizer: Tokenizer
    generator: Generator
    class_names: str | Sequence[str] = ()
    training: dict[str, Any] = field(default_factory=dict)
    sampling: Sampling | None = None
    features: str | None = None


def load_parts(
    source: str | Path,
    *,
    num_heads: int | None = None,
    grid: tuple[int, int] | None = None,
    tokenizer: str | Path | Tokenizer | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> ModelParts:
    """Open the parts of a model; arguments and errors are those of `Pipeline.from_pretrained`."""
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError(f"weights cannot be {dtype!r}: give a floating-point torch.dtype")
    device, found = devices.pick(device), locate(source, published.MODELS)
    if isinstance(found, Repository):
        found = hub.fetch_model(found)
    if isinstance(found, PublishedModel):
        checkpoint = checkpoints.read(hub.fetch(found.repository, found.file))
    elif found.is_file():
        checkpoint = checkpoints.read(found)
    elif (num_heads, grid, tokenizer) == (None, None, None):
        return _open_directory(found, device, dtype)
    else:
        raise ValueError(f"{found} says its num_heads, grid and tokenizer itself: leave them out")

    identity = identify_file(checkpoint)
    if not identity.is_generator:
        raise ValueError(f"{checkpoint.path} looks like {identity}: open it with randfeat.load_tokenizer")
    row = published.alike(identity.size, identity.config["vocab_size"], checkpoint.path.name, identity.tokens)
    if isinstance(found, PublishedModel) and row != found:
        raise ValueError(f"{checkpoint.path} should be {found.name}, but looks like {identity}: download it again")
    with devices.meta():
        grid = grid if grid is not None else row.grid if row else None
        generator = _generator(identity, num_heads, grid, checkpoint.path)
    if isinstance(tokenizer, Tokenizer):
        tokenizer = tokenizer.to(device)
    else:
        tokenizer = load_tokenizer(tokenizer or _tokenizer_of(identity, checkpoint.path), device)
    _fill_officially(generator, checkpoint, identity, device, dtype)
    # a file of another name may have been trained on other classes
    named = row is not None and row.file == checkpoint.path.name and generator.num_classes == published.NUM_CLASSES
    names = published.CLASS_NAMES if named else ()
    return ModelParts(tokenizer, generator, names, sampling=row.sampling if row else None)


def load_tokenizer(source: str | Path, device: str | torch.device = "cpu", *, l2_norm: bool | None = None) -> Tokenizer:
    """Open a tokenizer, in float32.

    source: a name of `weights.published.TOKENIZERS`, such as "llamagen-vq16"; the path of an official file; a model
    directory or its `tokenizer` folder; a name of `weights.zoo.NAMES`; or the id of a repository on the hub, as in
    `load`. l2_norm: of an official file of LlamaGen's VQ, whether it was trained with `codebook_l2_norm`, which the
    file does not say; by default found from the lengths of its codes (see `identify.compared_by_angle`). Raises as
    `load` does, and a ValueError where the lengths do not tell.
    """
    device, found = devices.pick(device), locate(source, published.TOKENIZERS)
    if isinstance(found, Repository):
        found = hub.fetch_model(found)
    if l2_norm is not None and not (isinstance(found, Path) and found.is_file()):
        raise ValueError(f"{source} says itself whether its codes are normalised: leave l2_norm out")
    if isinstance(found, Path) and found.is_dir():
        inner = zoo.tokenizer_folder(found)
        return _open_tokenizer_directory(inner if inner.is_dir() else found, device)
    path = hub.fetch(found.repository, found.file) if isinstance(found, PublishedTokenizer) else found
    checkpoint = checkpoints.read(path)
    identity = identify_file(checkpoint)
    if identity.is_generator:
        raise ValueError(f"{path} looks like {identity}, which is no tokenizer: open it with randfeat.load")
    if isinstance(found, PublishedTokenizer) and not found.config.items() <= identity.config.items():
        raise ValueError(f"{path} should be {found.name}, but looks like {identity}: download it again")
    config = identity.config | (_l2_norm(identity, checkpoint, l2_norm) if isinstance(found, Path) else {})
    with devices.meta():
        tokenizer = tokenizers.create(identity.model, **config)
    _fill_officially(tokenizer, checkpoint, identity, device, torch.float32)
    return tokenizer.eval()


def _l2_norm(identity: Identity, checkpoint: checkpoints.Checkpoint, given: bool | None) -> dict[str, bool]:
    """Return the keyword of a tokenizer that says whether its codes are compared by angle, where it has one."""
    if identity.model != "llamagen_vq":
        if given is not None:
            raise ValueError(f"{checkpoint.path} looks like {identity}, which never normalises: leave l2_norm out")
        return {}
    found = compared_by_angle(checkpoint.state) if given is None else given
    if found is None:
        raise ValueError(
            f"{checkpoint.path} does not say whether its codes are normalised, and their lengths fit both: open it "
            "with randfeat.load_tokenizer(..., l2_norm=True), or False if it was trained with codebook_l2_norm: false"
        )
    return {"l2_norm": found}


def locate(source: str | Path, rows: Mapping[str, Row]) -> Path | Row | Repository:
    """Return the meaning of a source: an existing path, a row of `rows` by its name, or an id on the hub; for a name of
    the zoo the path of its model directory, whose tokenizer is one, too.

    Raises a FileNotFoundError or a ValueError where it is none of them.
    """
    path = atomic.recover(Path(source))
    if path.exists():
        return path
    what_then = missing.did_you_mean(path) or ": check the path"
    not_there = FileNotFoundError(f"there is no file or directory {source}{what_then}")
    if isinstance(source, Path) or path.suffix in checkpoints.SUFFIXES:
        raise not_there
    if source in rows:
        return rows[source]
    if source in zoo.NAMES:
        return zoo.directory(source)
    if hub.is_id(source):
        official = published.from_repository(source)
        if official:
            raise ValueError(f"{source} holds official files: give the short name of one, {', '.join(official)}")
        missing.refuse_local(source)
        return Repository(source)
    if path.name != source:
        raise not_there
    if source in {**published.MODELS, **published.TOKENIZERS}:
        other, opener = ("model", "load") if source in published.MODELS else ("tokenizer", "load_tokenizer")
        raise ValueError(f"{source} is a {other}: open it with randfeat.{opener}")
    names = [*zoo.NAMES, *rows]
    asked = source.lower().replace("_", "-")
    near = [name for name in names if name.startswith(asked)] or difflib.get_close_matches(asked, names, 1)
    raise ValueError(
        f"{source!r} is no path here and no owner/name on the hub, and the short names are {', '.join(names)}"
        + (f": did you mean {near[0]}?" if near else "")
    )


def identify_file(checkpoint: checkpoints.Checkpoint) -> Identity:
    """Return the model of a checkpoint, as `identify` does, with the path in the error."""
    try:
        return identify(checkpoint.state)
    except ValueError as error:
        ours = " (it is part of a model directory: open that)" if checkpoint.path.name == weights.WEIGHTS else ""
        raise ValueError(f"{checkpoint.path} cannot be opened: {error}{ours}") from None


def _square(identity: Identity, path: Path) -> tuple[int, int]:
    """Return the grid of tokens where nobody says it: the square of those that a file has positions of, else GRID."""
    if identity.tokens is None:
        return GRID
    side = math.isqrt(max(0, identity.tokens))
    if side < 1 or side**2 != identity.tokens:
        raise ValueError(
            f"{path} looks like {identity} for {identity.tokens} tokens, which are no square: give load(..., grid=...)"
        )
    return side, side


def _generator(identity: Identity, num_heads: int | None, grid: tuple[int, int] | None, path: Path) -> Generator:
    """Return a generator with fresh weights, on the device of the context."""
    config = identity.config
    if num_heads is None:
        if identity.size is None:
            raise ValueError(
                f"{path} looks like {identity}, which is no published size, and no file says its number of attention "
                "heads: give load(..., num_heads=..., grid=...)"
            )
        num_heads = models.SIZES[identity.size][1]["num_heads"]
    check_whole_number("num_heads", num_heads)
    if identity.kv_dim is not None:
        config = config | {"num_kv_heads": identity.kv_dim * num_heads // config["embed_dim"]}
    if grid is None:
        grid = _square(identity, path)
    return models.create(identity.model, grid=grid, num_heads=num_heads, **config)


def _tokenizer_of(identity: Identity, path: Path) -> str:
    """Return the name of the published tokenizer whose codes a generator reads."""
    row = published.tokenizer_of(identity.config["vocab_size"])
    if row is None:
        raise ValueError(
            f"{path} looks like {identity}, and no published tokenizer has as many: give load(..., tokenizer=...)"
        )
    return row.name


def _open_directory(directory: Path, device: torch.device, dtype: torch.dtype) -> ModelParts:
    config, state = weights.read(directory)
    try:
        sampling = Sampling.from_dict(config["sampling"])
        with devices.meta():
            generator = models.create(**config["generator"])
        features = _own_spec(config, generator)
        classes, training = Classes(config["class_names"], generator.num_classes), config["training"]
    except (KeyError, TypeError, ValueError) as error:
        fault = weights.fault_of(error)
        raise ValueError(f"{directory / weights.CONFIG} does not describe a model of randfeat: {fault}") from None
    inner = zoo.tokenizer_folder(directory)
    if not inner.is_dir():
        raise FileNotFoundError(f"{inner.parent} has no folder {inner.name}: copy the whole directory again")
    tokenizer = _open_tokenizer_directory(inner, device)
    _fill(generator, state, device, dtype, directory / weights.WEIGHTS)
    return ModelParts(tokenizer, generator, classes.given, training, sampling, features)


def _open_tokenizer_directory(directory: Path, device: torch.device) -> Tokenizer:
    config, state = weights.read(directory)
    try:
        with devices.meta():
            tokenizer = tokenizers.create(**config)
    except (KeyError, TypeError, ValueError) as error:
        fault = weights.fault_of(error)
        raise ValueError(f"{directory / weights.CONFIG} does not describe a tokenizer of randfeat: {fault}") from None
    _fill(tokenizer, state, device, torch.float32, directory / weights.WEIGHTS)
    return tokenizer.eval()


def _fill_officially(
    model: Generator | Tokenizer,
    checkpoint: checkpoints.Checkpoint,
    identity: Identity,
    device: torch.device,
    dtype: torch.dtype,
) -> None:
    try:
        state = weights.from_official(model, checkpoint.state)
    except ValueError as error:
        raise ValueError(f"{checkpoint.path} looks like {identity}, but {error}") from None
    _fill(model, state, device, dtype, checkpoint.path)


def _fill(
    model: Generator | Tokenizer, state: dict[str, Tensor], device: torch.device, dtype: torch.dtype, path: Path
) -> None:
    """Give a file's tensors to a model on the meta device: no random initialization, no second copy in memory."""
    moved = {}
    for name in list(state):
        value = state.pop(name)
        if not value.is_floating_point():
            raise ValueError(f"{path}: {name} is {value.dtype}, expected floating-point weights")
        moved[name] = value.to(device=device, dtype=dtype)
    try:
        weights.load_strict(model, moved, assign=True)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _own_spec(config: Mapping[str, Any], generator: Generator) -> str | None:
    """Return the feature spec in the config of a model directory; None where it has none, as those written before.

    Raises a ValueError for one that the generator cannot do.
    """
    spec = config.get("features")
    if spec is not None:
        readout.check(generator, FeatureSpec.parse(spec))
    return spec
