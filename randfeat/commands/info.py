"""Describe a model, a tokenizer or a file of weights, without loading or downloading the weights.

SOURCE is whatever randfeat.load and randfeat.load_tokenizer take: a model directory, an official .safetensors, .pt or
.bin file, a model of the package such as fashion-arpg-free, a short name of a published one such as arpg-l or
llamagen-vq16, or the id owner/name of a model of randfeat on the hub; or the directory of a training. The model card
follows where the directory has one.

Without SOURCE all names are listed.

examples:
  randfeat info
  randfeat info fashion-arpg-free
  randfeat info arpg-l
  randfeat info digits_demo/models/randar
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from ..inference.sampling import Sampling
    from ..inference.schedules import Guidance
    from ..weights.checkpoints import Checkpoint
    from ..weights.hub import Repository
    from ..weights.identify import Identity
    from ..weights.published import PublishedModel, PublishedTokenizer

HOW_TO_RESUME = "Nothing was changed."

Line = tuple[str, str]


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the arguments of `randfeat info`."""
    text = "directory, file, name, or owner/name on the hub; without it all names are listed"
    parser.add_argument("source", nargs="?", metavar="SOURCE", help=text)


def run(args: argparse.Namespace) -> None:
    """Print a line for each fact and the model card, or the list of names."""
    if args.source is None:
        print("\n".join(listing()))
        return
    from ..weights import model_card

    found = _locate(args.source)
    lines = list(describe(found))
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        print(f"{name:{width}}  {value}")
    if isinstance(found, Path) and (found / model_card.CARD).is_file():
        print(f"\n{model_card.read(found)}")


def listing() -> Iterator[str]:
    """Yield the lines of a table of the package's models, and the names of those that are downloaded."""
    from ..weights import model_card, published, zoo

    rows = [("model of the package", "parameters", "on disk", "images", "classes", "does")]
    for name in zoo.installed():
        folder = zoo.directory(name)
        facts = model_card.describe(folder)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        labelled = bool(facts["num_classes"])
        does = "features, samples by class, likelihood of classes" if labelled else "features, learnt without labels"
        images = f"{facts['height']} x {facts['width']} {facts['channels']}"
        classes = str(facts["num_classes"]) if labelled else "none"
        rows.append((name, facts["parameters"], f"{size / 1e6:.1f} MB", images, classes, does))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(f"{text:{width}}" for text, width in zip(row, widths, strict=True)).rstrip()
    if missing := [name for name in zoo.NAMES if name not in zoo.installed()]:
        yield f"missing from this installation: {', '.join(missing)}"
    yield ""
    yield f"models downloaded at first use: {', '.join(published.MODELS)}"
    yield f"tokenizers downloaded at first use: {', '.join(published.TOKENIZERS)}"
    yield "more about one: randfeat info NAME"


def _locate(source: str) -> Path | PublishedModel | PublishedTokenizer | Repository:
    from ..weights import published
    from ..weights.loading import locate

    rows: dict[str, PublishedModel | PublishedTokenizer] = {**published.MODELS, **published.TOKENIZERS}
    return locate(source, rows)


def describe(found: Path | PublishedModel | PublishedTokenizer | Repository) -> Iterator[Line]:
    """Yield the facts that are known of a located source: name and text."""
    from ..weights import checkpoints, hub

    if isinstance(found, hub.Repository):
        yield from _repository(found)
    elif not isinstance(found, Path):
        yield from _short_name(found)
    elif found.is_dir():
        yield from _directory(found)
    else:
        yield from _file(checkpoints.read(found))


def _short_name(row: PublishedModel | PublishedTokenizer) -> Iterator[Line]:
    from ..weights import checkpoints, hub

    yield "name", row.name
    yield from _on_hub(row.repository, row.file)
    path = hub.cached(row.repository, row.file)
    yield from _file(checkpoints.read(path)) if path else _as_published(row)


def _as_published(row: PublishedModel | PublishedTokenizer) -> Iterator[Line]:
    """Yield the facts of a published file that is not downloaded yet."""
    from .. import models, tokenizers, weights
    from ..utils import devices
    from ..weights import published
    from ..weights.identify import identify
    from ..weights.published import PublishedTokenizer

    with devices.meta():
        if isinstance(row, PublishedTokenizer):
            state = weights.to_official(tokenizers.create(row.model, **row.config))
        else:
            shape = dict(vocab_size=row.tokenizer.vocab_size, num_classes=published.NUM_CLASSES)
            state = weights.to_official(models.create(row.size, grid=row.grid, **shape))
    yield from _parameters(state)
    yield from _identity(identify(state), row.file)


def _file(checkpoint: Checkpoint) -> Iterator[Line]:
    from ..models import MODELS
    from ..tokenizers import TOKENIZERS
    from ..weights.loading import identify_file

    identity = identify_file(checkpoint)
    unused = (MODELS[identity.model] if identity.is_generator else TOKENIZERS[identity.model]).unused
    yield "file", str(checkpoint.path)
    yield "weights under", checkpoint.container or "no name, the file holds nothing else"
    if checkpoint.entries:
        yield "beside them", ", ".join(checkpoint.entries)
    yield from _parameters({name: value for name, value in checkpoint.state.items() if name not in unused})
    yield from _dtype(checkpoint.state)
    yield from _identity(identity, checkpoint.path.name)


def _identity(identity: Identity, file: str) -> Iterator[Line]:
    """Yield the facts of official weights, and what is published about them."""
    from .. import models
    from ..weights import published
    from ..weights.loading import GRID

    config = identity.config
    yield "model", str(identity)
    yield "vocabulary", f"{config['vocab_size']:,}"
    if not identity.is_generator:
        return
    row = published.alike(identity.size, config["vocab_size"], file, identity.tokens)
    yield "classes", f"{config['num_classes']:,}"
    if identity.size:
        yield "size", f"{identity.size}, {models.SIZES[identity.size][1]['num_heads']} heads"
    else:
        yield "size", "none that is published: give num_heads to randfeat.load"
    if row or identity.tokens is None:
        yield "grid", _grid(row.grid) if row else f"{_grid(GRID)} unless randfeat.load is given another"
    else:
        yield "grid", f"{identity.tokens} tokens, a square unless randfeat.load is given another grid"
    if row:
        yield "sampling", _sampling(row.sampling)
    tokenizer = row.tokenizer if row else published.tokenizer_of(config["vocab_size"])
    if tokenizer is None:
        yield "tokenizer", "none that is published: give a tokenizer to randfeat.load"
    else:
        yield "tokenizer", f"{tokenizer.name} unless randfeat.load is given another"
        yield from _on_hub(tokenizer.repository, tokenizer.file)


def _directory(directory: Path) -> Iterator[Line]:
    from .. import weights
    from ..weights import zoo

    if not (directory / weights.CONFIG).is_file():  # a training: its model, or its tokenizer
        inside = (directory / name for name in ("model", weights.TOKENIZER))
        directory = next((one for one in inside if (one / weights.CONFIG).is_file()), directory)
    config, state = weights.read(directory)
    yield "directory", str(directory)
    yield from _config(config)
    yield from _parameters(state)
    yield from _dtype(state)
    if (inner := zoo.tokenizer_folder(directory)).is_dir():
        config, state = weights.read(inner)
        yield from _config(config)
        yield from _parameters(state)


def _repository(repository: str) -> Iterator[Line]:
    from .. import weights
    from ..weights import hub

    for file in hub.FILES:
        yield from _on_hub(repository, file)
    config = hub.cached(repository, weights.CONFIG)
    if config:
        yield from _config(weights.read_config(config.parent))


def _config(config: Mapping[str, Any]) -> Iterator[Line]:
    """Yield the facts of the config of a model directory, or of the tokenizer in it."""
    from .. import weights
    from ..inference.sampling import Sampling
    from ..models import MODELS

    if "generator" not in config and "name" not in config:
        raise ValueError("the config describes neither a model nor a tokenizer of randfeat: it names none")
    if "generator" not in config:
        yield "tokenizer", _keywords(config)
        return
    try:
        names, sampling = config["class_names"], Sampling.from_dict(config["sampling"])
        yield "written by", f"randfeat {config['randfeat']}"
        yield "generator", _keywords(config["generator"])
        yield "training", _keywords(_training(config["training"]))
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"the config does not describe a model of randfeat: {weights.fault_of(error)}") from None
    yield (
        "class names",
        names if isinstance(names, str) else ", ".join(names[:10]) + ", ..." * (len(names) > 10) or "none",
    )
    yield "sampling", _sampling(sampling)
    own = MODELS.get(config["generator"].get("name"))
    yield "features", config.get("features") or (own.default_spec if own else "unknown")


def _training(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what one line can hold of a training record: plain settings, also of the recipe, and the result."""
    nested = record.get("recipe", {})
    parts = [record, nested, nested.get("training", {})] if isinstance(nested, Mapping) else [record]
    facts = {name: value for part in parts for name, value in part.items() if isinstance(value, (str, int, float))}
    history = record.get("history")
    if isinstance(history, Mapping) and "kept_step" in history:
        facts["kept step"] = history["kept_step"]
        losses = dict(history.get("validation") or ())
        if history["kept_step"] in losses:
            facts["held-out loss"] = round(losses[history["kept_step"]], 4)
    return facts


def _on_hub(repository: str, file: str) -> Iterator[Line]:
    from ..weights import hub

    path = hub.cached(repository, file)
    yield "on the hub", f"https://huggingface.co/{repository}/blob/main/{file}"
    yield "in the cache", str(path) if path else "no, it would be downloaded"


def _parameters(state: Mapping[str, Tensor]) -> Iterator[Line]:
    yield "parameters", f"{sum(value.numel() for value in state.values()):,}"


def _dtype(state: Mapping[str, Tensor]) -> Iterator[Line]:
    yield "dtype", ", ".join(sorted({str(value.dtype).removeprefix("torch.") for value in state.values()}))


def _grid(grid: tuple[int, int]) -> str:
    return f"{grid[0]} x {grid[1]} tokens"


def _sampling(sampling: Sampling) -> str:
    """Return steps, schedule and guidance, and all other settings that are not the default."""
    from ..inference.sampling import Sampling

    facts = dict(steps=sampling.steps or "one a token", schedule=sampling.schedule, guidance=_scale(sampling.guidance))
    others = {name: value for name, value in asdict(sampling).items() if name not in facts}
    default = asdict(Sampling())
    return _keywords(facts | {name: value for name, value in others.items() if value != default[name]})


def _scale(guidance: Guidance) -> str:
    scale = f"{guidance.scale}" if guidance.schedule == "constant" else f"{guidance.start} to {guidance.scale}"
    if guidance.schedule == "power-cosine":
        scale += f" by a cosine of power {guidance.power}"
    first, last = guidance.interval
    return scale if (first, last) == (0, 1) else f"{scale} from {first} to {last}"


def _keywords(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
