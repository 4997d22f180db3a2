"""Page of a tokenizer's training: its curves, its reconstructions and its recipe."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from randfeat.pretrain.vq import TokenizerConfig

from ..training import page
from ..training.channels import about_channels
from ..training.monitor import TRAIN, VALIDATION

RECONSTRUCTIONS = "reconstructions"
NO_TERMS = ("step", "loss", "learning_rate", "gradient_norm", "images_per_second", "memory_gib")


def write_page(directory: Path, recipe: TokenizerConfig, state: str) -> Path:
    """Write TOK/report.html from the files of a run, and return its path.

    recipe: with the channels of the images. state: how far the run is.
    """
    train, validation = (page.read(directory / name) for name in (TRAIN, VALIDATION))
    figures: page.Figures = {}
    if train:
        figures |= page.losses(train, validation, "loss")
    if validation:
        figures |= _held_out(validation, recipe)
    if train:
        terms = {name: (train["step"], train[name]) for name in train if name not in NO_TERMS}
        figures["Parts of the loss"] = page.lines(terms, "unweighted", log=_positive(terms)), "While training."
        figures |= page.steps(train, _speed(train))
    assert recipe.images.channels is not None
    above = "Held-out images, and below each its reconstruction."
    about = " ".join([above, about_channels(recipe.images.channels)]).strip()
    return page.write(directory, _lead(validation, recipe, state), figures, RECONSTRUCTIONS, recipe, about)


def _held_out(validation: page.Columns, recipe: TokenizerConfig) -> page.Figures:
    """Return the figures of reconstruction and of the use of the codes."""
    steps, vocab = validation["step"], recipe.quantizer.vocab_size
    use = {
        "codes in use": (steps, 100 * validation["usage"]),
        "perplexity": (steps, 100 * validation["perplexity"] / vocab),
    }
    caption = (
        f"Of {vocab:,} codes, on the held-out images; perplexity: as many codes, were all equally frequent. "
        "Few images cannot use many codes."
    )
    return {
        "PSNR": (page.lines({"PSNR": (steps, validation["psnr"])}, "dB"), "Of held-out images, the mean."),
        "Use of the codes": (page.lines(use, "% of the codes"), caption),
    }


def _lead(validation: page.Columns, recipe: TokenizerConfig, state: str) -> str:
    """Return the line below the title."""
    (height, width), stride = recipe.images.size, recipe.network.stride
    best = ""
    if validation:
        kept = int(np.argmin(validation["loss"]))
        best = (
            f"; of held-out images {validation['psnr'][kept]:.2f} dB, {100 * validation['usage'][kept]:.0f} % of the "
            f"codes in use, after step {int(validation['step'][kept]):,}"
        )
    return (
        f"Tokenizer of {height} x {width} pixels, {height // stride * (width // stride):,} tokens of "
        f"{recipe.quantizer.vocab_size:,} codes, {state}{best}."
    )


def _speed(train: page.Columns) -> str:
    """Return the caption of the speed figure."""
    median = np.median(train["images_per_second"])
    return f"Median {median:.1f} images a second; at most {train['memory_gib'].max():.2f} GiB."


def _positive(terms: dict[str, tuple[np.ndarray, np.ndarray]]) -> bool:
    """Return whether all parts are positive, so that their axis can be logarithmic; adversarial losses are not."""
    return all((values > 0).all() for _, values in terms.values())
