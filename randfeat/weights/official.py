"""The names that official checkpoints use, and strict loading."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..models import Generator
from ..tokenizers import Tokenizer


def _official_layout(model: Generator | Tokenizer) -> dict[str, tuple[str, ...]]:
    """Return each of our parameter names with the official names that make it up, stacked along dimension 0."""
    if isinstance(model, Tokenizer):  # tokenizers are written with the official names
        return {name: (name,) for name in model.state_dict()}
    layout: dict[str, tuple[str, ...]] = {}
    for ours in model.state_dict():
        if ours.startswith("control."):  # which no official code has
            layout[ours] = (ours,)
            continue
        parts = ours.split(".")
        number = next((part for part in parts if part.isdigit()), "*")
        pattern = ".".join("*" if part.isdigit() else part for part in parts)
        layout[ours] = tuple(name.replace("*", number) for name in model.official_names[pattern])
    return layout


def to_official(model: Generator | Tokenizer, state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Return the state (by default the model's own) under the names and shapes of the official code's state_dict,
    without what nothing here reads (`unused` of the model).
    """
    state = model.state_dict() if state is None else state
    official: dict[str, Tensor] = {}
    for ours, names in _official_layout(model).items():
        official.update(zip(names, state[ours].chunk(len(names)), strict=True))
    return official


def from_official(model: Generator | Tokenizer, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return an official state_dict under our names, less what nothing here reads. Raises as `load_strict` does.

    The model may lie on the meta device; tensors that have one official name are not copied.
    """
    state = {name: value for name, value in state.items() if name not in model.unused}
    _check(to_official(model), state)
    stacked = {ours: [state[name] for name in names] for ours, names in _official_layout(model).items()}
    return {ours: parts[0] if len(parts) == 1 else torch.cat(parts) for ours, parts in stacked.items()}


def load_strict(module: torch.nn.Module, state: Mapping[str, Tensor], assign: bool = False) -> None:
    """Load a state whose names and shapes must be the module's; a ValueError lists the first that are not.

    assign: take the tensors themselves, whatever their type and device, instead of copying their values.
    """
    _check(module.state_dict(), state)
    module.load_state_dict(dict(state), assign=assign)


def _check(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    missing, unexpected = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing or unexpected:
        raise ValueError(
            f"these are weights of another model: {len(missing)} missing ({first_few(missing)}), "
            f"{len(unexpected)} unexpected ({first_few(unexpected)})"
        )
    shapes = {name: (tuple(found[name].shape), tuple(value.shape)) for name, value in expected.items()}
    wrong = [f"{name}: {actual} for {wanted}" for name, (actual, wanted) in shapes.items() if actual != wanted]
    if wrong:
        raise ValueError(f"{len(wrong)} weights have the wrong shape: {first_few(wrong)}")


def first_few(names: Sequence[str], count: int = 3) -> str:
    """For an error: the first names, or `none`."""
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "") if names else "none"
