"""Official checkpoint files, opened without running code from them and mapped into memory where possible."""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from ..tokenizers import LlamaGenVQ, Tokenizer
from ..utils import atomic
from .format import read_safetensors
from .official import first_few, to_official

PICKLES = (".pt", ".pth", ".bin")
SUFFIXES = (".safetensors", *PICKLES)
CONTAINERS = ("model", "module", "state_dict", "ema")  # entries that may hold the weights; the first found is used

RECORD = 65536  # latest tokens that LlamaGen's quantiser keeps, for a statistic of its training


@dataclass(frozen=True)
class Checkpoint:
    """Content of a checkpoint file.

    state: official names and tensors, mapped into memory where the format allows it. container: the entry that holds
    the state, None where the file itself does. entries: names of the other entries.
    """

    path: Path
    state: dict[str, Tensor]
    container: str | None = None
    entries: tuple[str, ...] = ()


def read(path: Path) -> Checkpoint:
    """Open a .safetensors file or a pickle of torch.save. Raises a FileNotFoundError or a ValueError of one sentence.

    Where a trainer's checkpoint holds both `model` and `ema`, the first is used, as in the official sampling code.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: check the path")
    if path.suffix == ".safetensors":
        return Checkpoint(path, read_safetensors(path))
    if path.suffix not in PICKLES:
        raise ValueError(f"{path} is no checkpoint: expected a file that ends in {', '.join(SUFFIXES)}")
    content = _unpickle(path)
    if _is_state(content):
        return Checkpoint(path, _unwrapped(content))
    found = content if isinstance(content, Mapping) else {}
    for name in CONTAINERS:
        if _is_state(found.get(name)):
            return Checkpoint(
                path, _unwrapped(found[name]), name, tuple(str(entry) for entry in found if entry != name)
            )
    raise ValueError(
        f"{path} holds no weights: expected named tensors, alone or under one of {', '.join(CONTAINERS)}, "
        f"found {first_few([str(entry) for entry in found])}"
    )


def write_official(path: Path, tokenizer: Tokenizer) -> None:
    """Write LlamaGen's VQ as a file that the official code reads, .pt with the weights under `model`, or .safetensors.

    Official files do not say how wide the network is, nor whether codes are compared by angle (`codebook_l2_norm`).
    Raises a ValueError for a path of another suffix, and for tokenizers that the official code does not know.
    """
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path} is no checkpoint: expected a file that ends in {', '.join(SUFFIXES)}")
    other = sorted({"norm_groups", "quantizer"} & tokenizer.config.keys())
    if not isinstance(tokenizer, LlamaGenVQ) or other:
        what = f"one with another {other[0]}" if other else f"a {type(tokenizer).__name__}"
        raise ValueError(f"LlamaGen's code knows its own VQ tokenizer, not {what}: save it as a directory")
    state = {name: value.detach().cpu().contiguous() for name, value in to_official(tokenizer).items()}
    state |= {name: torch.zeros(RECORD) for name in tokenizer.unused}
    with atomic.open_write(path) as file:
        if path.suffix in PICKLES:
            torch.save({"model": state}, file)
        else:
            file.write(save(state))


def _unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state without the prefixes that DistributedDataParallel and torch.compile give to every name."""
    for prefix in ("module.", "_orig_mod."):
        if all(name.startswith(prefix) for name in state):
            return _unwrapped({name.removeprefix(prefix): value for name, value in state.items()})
    return dict(state)


def _is_state(content: Any) -> bool:
    return (
        isinstance(content, Mapping)
        and bool(content)
        and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items())
    )


def _unpickle(path: Path) -> Any:
    # argparse.Namespace: the official trainers save their arguments beside the weights
    with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected pickle protocol")  # such files are refused with an error below
        try:
            # files written before PyTorch 1.6 are no zip archives and cannot be mapped
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        except pickle.UnpicklingError as error:
            wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
            if wanted:
                raise ValueError(
                    f"{path} asks for {wanted[1]} and could run any code, so it is not opened: "
                    "save only its tensors, best as .safetensors"
                ) from None
            raise ValueError(
                f"{path} is damaged, or no checkpoint of only tensors that torch.save wrote, so it is not opened: "
                "copy it again, or save its tensors as .safetensors"
            ) from None
        except PermissionError:
            raise
        except Exception as error:  # a file cut short can raise any error
            reason = "it is no file of torch.save, or ends too early"
            raise ValueError(f"{path} is damaged or cut short ({reason}): copy it again") from error
