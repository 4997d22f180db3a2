"""Sentence about what a training will do."""

from __future__ import annotations

from randfeat.pretrain.config import OptimConfig


def plan(data: str, held_out: str, tokens: int, codes: int, parameters: int, config: OptimConfig) -> str:
    """Return the sentence. data: the images, in words. held_out: how many of them. tokens: of an image."""
    return (
        f"{data}, {held_out} held out; {tokens:,} tokens an image of {codes:,} codes; "
        f"{parameters / 1e6:.1f} million parameters; {config.steps:,} steps of {config.batch_size:,} images"
    )
