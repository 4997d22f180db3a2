"""Opening models: what `randfeat.load` takes."""

from __future__ import annotations

from pathlib import Path

from . import files, models, tokenizers, weights
from .pipeline import TOKENIZER, Pipeline
from .sampling import Sampling


def load(directory: str | Path) -> Pipeline:
    """Opens a model directory that `Pipeline.save` wrote. Nothing in it is run as code."""
    directory = files.settled(Path(directory))
    config, state = weights.read(directory)
    tokenizer_config, tokenizer_state = weights.read(directory / TOKENIZER)
    try:
        generator = models.create(**config["generator"])
        tokenizer = tokenizers.create(**tokenizer_config)
        names, training = config["class_names"], config["training"]
        sampling = Sampling.from_dict(config["sampling"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{directory / weights.CONFIG} does not describe a model of randfeat: {error}") from None
    weights.load_strict(generator, state)
    weights.load_strict(tokenizer, tokenizer_state)
    return Pipeline(tokenizer, generator, names, training, sampling)
