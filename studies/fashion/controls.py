"""Controls of equal cost: a masked-token transformer on our tokens, and a masked autoencoder of pixels.

Both have the width and as many blocks as the label-free ARPG on 14 x 14 tokens, the best reader, see random crops as it
does, and are trained for as many steps as cost the same in floating-point operations as both phases of its training,
those of the agreement of its crops included.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from randfeat.pretrain import (
    AgreementObjective,
    Objective,
    PretrainConfig,
    RandomCrops,
    RuntimeConfig,
    Step,
    read_recipe,
    train,
)
from randfeat.pretrain.agreement import projecting
from randfeat.pretrain.config import ModelConfig
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from randfeat.models import Generator, create
from randfeat.tokenizers import Tokenizer
from randfeat.utils import atomic, progress
from randfeat.weights import fingerprint
from studies.reading.controls import MaskedObjective, MaskedTransformer, PixelAutoencoder, PixelObjective, shaped
from studies.reading.material import as_pixels

from .images import Fashion
from .units import MissingModel

RECIPE = "fashion_arpg_14x14_free"
# changes of the recipe in the phases of its training, see its header
PHASES = (
    ("agreement.weight=0", "training.steps=1500", "training.learning_rate=0.0015", "training.warmup=100"),
    (),
)
CROPS, SCALE, CONTRAST = 8, (0.5, 1.0), 0.4  # crops beside each image, as in the token store of the recipe's header
WATCHED = 1000  # validation images
WEIGHTS, RECORD = "weights.safetensors", "training.json"
PATCH = 4  # pixels a side of a patch of the autoencoder
TITLES = {"masked": "masked tokens", "pixel_autoencoder": "masked autoencoder of pixels"}


@dataclass(frozen=True)
class Inputs:
    """Inputs of a network: integers (n, crops, values) of training images, and (m, values) of validation images."""

    train: Tensor
    validation: Tensor


def build(name: str, tokenizer: Tokenizer, grid: tuple[int, int], shape: ModelConfig) -> Generator:
    """Return a control with initial weights. name: masked or pixel_autoencoder, or arpg for the network that they are
    compared with.
    """
    size = asdict(shape) | {"grid": grid, "vocab_size": tokenizer.vocab_size, "num_classes": 0}
    if name == "arpg":
        return create(name, **size)
    size["depth"] *= 2  # ARPG has so many blocks in each half
    if name == "masked":
        return MaskedTransformer(**size)
    return shaped(PixelAutoencoder, PATCH**2)(**size | {"vocab_size": 256})


OBJECTIVES: dict[str, Callable[[Generator, bool], nn.Module]] = {
    "arpg": Objective,
    "masked": MaskedObjective,
    "pixel_autoencoder": PixelObjective,
}


def stride(name: str, tokenizer: Tokenizer) -> int:
    """Return the pixels a side of a position of a network."""
    return PATCH if name == "pixel_autoencoder" else tokenizer.stride


def grid_of(name: str, tokenizer: Tokenizer, data: Fashion) -> tuple[int, int]:
    """Return rows and columns of a network's positions."""
    side = stride(name, tokenizer)
    return data.images.shape[1] // side, data.images.shape[2] // side


def flops(name: str, tokenizer: Tokenizer, grid: tuple[int, int], recipe: PretrainConfig) -> int:
    """Return the floating-point operations of training on one image, forward and backward; of ARPG with the recipe's
    agreement.
    """
    with torch.device("meta"):
        network = build(name, tokenizer, grid, recipe.size).train()
        values = math.prod(grid) * (PATCH**2 if name == "pixel_autoencoder" else 1)
        tokens, order = (torch.zeros(1, count, dtype=torch.int64) for count in (values, math.prod(grid)))
    if name == "arpg" and recipe.agreement.weight:
        with projecting(network, recipe.agreement, 0):
            return _counted(AgreementObjective(network, False, recipe.agreement), tokens, None, order, tokens)
    return _counted(OBJECTIVES[name](network, False), tokens, None, order)


def _counted(objective: nn.Module, *shown: Tensor | None) -> int:
    with FlopCounterMode(display=False) as counter:
        objective(*shown)[0].backward()
    return counter.get_total_flops()


def encoder(name: str, tokenizer: Tokenizer) -> Callable[[Tensor], Tensor]:
    """Return what turns images (n, 1, H, W) from 0 to 1 into inputs of a control (n, values)."""
    return patches if name == "pixel_autoencoder" else lambda images: tokenizer.encode(images).flatten(1)


def patches(images: Tensor) -> Tensor:
    """Return the pixels of images (n, 1, H, W) from 0 to 1 patch by patch, as bytes: uint8 (n, H * W)."""
    cut = (images[:, 0] * 255 + 0.5).to(torch.uint8).unfold(1, PATCH, PATCH).unfold(2, PATCH, PATCH)
    return cut.flatten(1)


def made_with(name: str, tokenizer: Tokenizer) -> str:
    """Return the fingerprint of the tokenizer that makes a control's inputs, "pixels" for one that reads pixels."""
    return "pixels" if name == "pixel_autoencoder" else fingerprint(tokenizer)[:12]


def inputs(name: str, tokenizer: Tokenizer, data: Fashion, folder: Path) -> Inputs:
    """Return the inputs of a control, from its file in the folder where there is one."""
    path, encode = folder / f"{name}-{made_with(name, tokenizer)}.npy", encoder(name, tokenizer)
    if not path.exists():
        crop = RandomCrops(data.images.shape[1:3], 1, others=CROPS, scale=SCALE, contrast=CONTRAST)
        folder.mkdir(parents=True, exist_ok=True)
        unfinished, whole = path.with_suffix(".unfinished"), None
        with progress.bar(len(data.fit), f"crops for {name}", "image") as bar:
            for start in range(0, len(data.fit), 250):
                rows = data.fit[start : start + 250]
                crops = np.stack([crop(Image.fromarray(data.images[row]), int(row)) for row in rows])
                made = encode(torch.from_numpy(crops[..., 0]).flatten(0, 1).unsqueeze(1).float() / 255)
                if whole is None:
                    kind = np.uint8 if made.dtype == torch.uint8 else np.int16
                    shape = (len(data.fit), CROPS + 1, made.shape[1])
                    whole = np.lib.format.open_memmap(unfinished, "w+", kind, shape)
                whole[start : start + len(rows)] = made.unflatten(0, (len(rows), -1)).numpy()
                bar.update(len(rows))
        unfinished.replace(path)
    validation = encode(as_pixels(data.images[data.chosen[:WATCHED]])).long()
    return Inputs(torch.from_numpy(np.load(path, mmap_mode="c")), validation)


def trained(name: str, tokenizer: Tokenizer, data: Fashion, folder: Path, steps: int | None = None) -> Path:
    """Train a control, from its last checkpoint where there is one; return its folder.

    steps: of ARPG in each phase, by default those of its recipe; the control gets as many as cost the same. Raises a
    ValueError where the folder holds one that was trained for another number of them, or on other tokens.
    """
    own, phases = folder / name, [read_recipe(RECIPE, changes) for changes in PHASES]
    recipe, counts = phases[0], [steps or phase.training.steps for phase in phases]
    if (own / RECORD).exists():
        if _record(name, tokenizer, own)["steps_of_arpg"] != counts:
            raise ValueError(f"{own} was trained at the cost of other than {counts} steps of ARPG: remove it first")
        return own
    grid = grid_of(name, tokenizer, data)
    theirs = [flops("arpg", tokenizer, grid_of("arpg", tokenizer, data), phase) for phase in phases]
    ours = flops(name, tokenizer, grid, recipe)
    taken = max(1, round(sum(count * each for count, each in zip(counts, theirs, strict=True)) / ours))
    how = replace(
        recipe.training,
        steps=taken,
        warmup=min(recipe.training.warmup, max(1, taken // 10)),
        eval_every=max(1, min(recipe.training.eval_every, taken // 4)),
        order=None,
        label_dropout=0.0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(how.seed)
        network = build(name, tokenizer, grid, recipe.size)
    shown = inputs(name, tokenizer, data, folder / "inputs")
    with progress.bar(taken, name, "step") as bar:

        def tick(done: Step) -> None:
            bar.set_postfix_str(f"{done.loss:.3f}", refresh=False)
            bar.update(done.step - bar.n)

        history = train(
            network,
            shown.train,
            None,
            (shown.validation, None),
            how,
            RuntimeConfig(save_every=recipe.running.save_every),
            objective=OBJECTIVES[name],
            directory=own / "checkpoints",
            on_step=tick,
        )
    told: dict[str, Any] = {
        "model": name,
        "grid": grid,
        "inputs": made_with(name, tokenizer),
        "size": asdict(recipe.size),
        "training": asdict(how),
        "steps_of_arpg": counts,
        "flops_of_a_step": {"arpg": [each * how.batch_size for each in theirs], name: ours * how.batch_size},
        "parameters": sum(one.numel() for one in network.parameters()),
        "validation": history.validation,
        "kept_step": history.kept_step,
        "seconds": round(history.seconds, 1),
    }
    atomic.write_bytes(own / WEIGHTS, save(network.state_dict()))
    atomic.write_bytes(own / RECORD, json.dumps(told, indent=1).encode() + b"\n")
    return own


def opened(name: str, tokenizer: Tokenizer, folder: Path) -> Generator:
    """Return a trained control. Raises a `MissingModel` where there is none, a ValueError for other tokens."""
    own = folder / name
    if not (own / RECORD).exists():
        raise MissingModel(f"there is no {name} in {own}: run `python -m studies.fashion controls` first")
    told = _record(name, tokenizer, own)
    network = build(name, tokenizer, tuple(told["grid"]), ModelConfig(**told["size"]))
    network.load_state_dict(load_file(own / WEIGHTS))
    return network.eval()


def _record(name: str, tokenizer: Tokenizer, own: Path) -> dict[str, Any]:
    """Return the record of a trained control. Raises a ValueError where it was trained on other tokens than these."""
    told: dict[str, Any] = json.loads((own / RECORD).read_text("utf-8"))
    if told["inputs"] != made_with(name, tokenizer):
        raise ValueError(f"{own} was trained on the tokens of another tokenizer: remove it, and train the control anew")
    return told
