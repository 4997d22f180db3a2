"""Parameter names of official checkpoints, and strict loading."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..models import Generator
from ..tokenizers import Tokenizer


def _official_layout(model: Generator | Tokenizer) -> dict[str, tuple[str, ...]]:
    """Return the official names of each of our parameters; where there are several, they are stacked on dimension 0."""
    if isinstance(model, Tokenizer):  # our tokenizers use the official names
        return {name: (name,) for name in model.state_dict()}
    if not model.official_names:
        raise ValueError(f"no official code has {type(model).__name__}, so there are no names of its weights but ours")
    layout: dict[str, tuple[str, ...]] = {}
    for ours in model.state_dict():
        if ours.startswith("control."):  # no official code has it
            layout[ours] = (ours,)
            continue
        parts = ours.split(".")
        number = next((part for part in parts if part.isdigit()), "*")
        pattern = ".".join("*" if part.isdigit() else part for part in parts)
        layout[ours] = tuple(name.replace("*", number) for name in model.official_names[pattern])
    return layout


def to_official(model: Generator | Tokenizer, state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Return a state under the names and shapes of the official code, without the entries that are `unused` here.

    state: by default the model's own. Raises a ValueError for a model that no official code has.
    """
    state = model.state_dict() if state is None else state
    official: dict[str, Tensor] = {}
    for ours, names in _official_layout(model).items():
        official.update(zip(names, _parts(model, state[ours], names), strict=True))
    return official


def _parts(model: Generator | Tokenizer, value: Tensor, names: tuple[str, ...]) -> Sequence[Tensor]:
    """Return the rows of each official tensor that one of ours stacks: of equal numbers, or as the model says."""
    if isinstance(model, Tokenizer) or not model.official_rows.keys() & set(names):
        return value.chunk(len(names))
    rest = len(value) - sum(model.official_rows.get(name, 0) for name in names)
    return value.split([model.official_rows.get(name, rest) for name in names])  # one at most is of the rest


def from_official(model: Generator | Tokenizer, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return an official state_dict under our names, without the entries that are `unused` here.

    The model may be on the meta device; tensors with one official name are not copied. Raises as `load_strict` does.
    """
    state = {name: value for name, value in state.items() if name not in model.unused}
    _check(to_official(model), state)
    stacked = {ours: [state[name] for name in names] for ours, names in _official_layout(model).items()}
    return {ours: parts[0] if len(parts) == 1 else torch.cat(parts) for ours, parts in stacked.items()}


def load_strict(module: torch.nn.Module, state: Mapping[str, Tensor], assign: bool = False) -> None:
    """Load a state whose names and shapes must be those of the module; a ValueError lists the first differences.

    assign: use the tensors themselves, of any type and device, instead of copying their values.
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
    """Return the first names for an error message, or `none`."""
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "") if names else "none"
