"""A recipe: which generator, how large, with or without labels, trained how. Read from the YAML files in `configs/`."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import torch

from randfeat import models
from randfeat.models import Generator

from .engine import Training


@dataclass(frozen=True)
class Size:
    """The size of a generator: the keywords of `Generator` that do not follow from the data."""

    embed_dim: int
    depth: int
    num_heads: int
    num_kv_heads: int | None = None
    ffn_dim: int | None = None
    dropout: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """model: a registered name. labels: whether training sees them. size: of the generator. training: how it is
    trained.
    """

    model: str
    labels: bool
    size: Size
    training: Training

    def build(self, grid: tuple[int, int], vocab_size: int, num_classes: int) -> Generator:
        """A generator with fresh weights that are a function of the recipe's seed; label-free recipes have no class."""
        with torch.random.fork_rng():
            torch.manual_seed(self.training.seed)
            return models.create(
                self.model,
                grid=grid,
                vocab_size=vocab_size,
                num_classes=num_classes if self.labels else 0,
                **vars(self.size),
            )


def read_recipe(name: str | Path) -> Recipe:
    """A recipe by its name in `configs/` or by the path of a YAML file. Unknown, missing and ill-typed fields are
    errors.
    """
    from jsonargparse import ArgumentError, ArgumentParser

    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        packaged = resources.files("randfeat.configs")
        names = sorted(entry.name[:-5] for entry in packaged.iterdir() if entry.name.endswith(".yaml"))
        if name not in names:
            raise ValueError(f"no recipe {name!r}, expected a path ending in .yaml or one of {', '.join(names)}")
        text = (packaged / f"{name}.yaml").read_text("utf-8")
    else:
        text = path.read_text("utf-8")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Recipe)
    try:
        return Recipe(**vars(parser.instantiate(parser.parse_string(text))))
    except ArgumentError as error:
        raise ValueError(f"recipe {name}: {error}") from None
