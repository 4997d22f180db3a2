"""The recorded outputs of the official implementations; $RANDFEAT_GOLDEN names other folders of the same format,
separated as those of $PATH are.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from randfeat import weights
from randfeat.inference.sampling import Step
from randfeat.models import Generator, create, orders
from randfeat.models.layers import ffn_width, rope_at

SHARED = Path(__file__).parents[3] / "shared"
NAMED = os.environ.get("RANDFEAT_GOLDEN")
FOLDERS = [Path(name) for name in NAMED.split(os.pathsep)] if NAMED else [SHARED / "golden", SHARED / "golden_lpd_rar"]
# path of each case without suffix; INDEX.json lists them
CASES = [
    folder / case["case"]
    for folder in FOLDERS
    if (folder / "INDEX.json").is_file()
    for case in json.loads((folder / "INDEX.json").read_text())
]
needs_golden = pytest.mark.skipif(
    not CASES, reason=f"no recorded outputs at {FOLDERS[0]}; RANDFEAT_GOLDEN names another folder"
)
KEYS = [path for folder in FOLDERS for path in sorted((folder / "keys").glob("*.json"))]


def recorded(name: str) -> dict[str, Any]:
    """Return a file of recorded numbers that belongs to no case."""
    return next((json.loads((f / name).read_text()) for f in FOLDERS if (f / name).is_file()), {})


def close(actual: Tensor, expected: Tensor, case: dict[str, Any]) -> None:
    tolerance = case["suggested_tolerance"]
    torch.testing.assert_close(
        actual, expected.reshape(actual.shape), atol=tolerance["float_atol"], rtol=tolerance["float_rtol"]
    )


def recorded_order(model: Generator, tensors: dict[str, Tensor]) -> Tensor:
    """(B, N); what records none goes in raster order."""
    order = tensors.get("in.order", tensors.get("in.token_order", orders.raster(model.grid)))
    return order.expand(len(tensors["in.cond"]), -1).contiguous()


def unmasked_arpg(model, tokens, label, order):
    """Return the logits of the official forward in evaluation mode: the same blocks with the masks off."""
    x, places = model._content(label, orders.gather(tokens, order)[:, :-1], order[:, :-1])
    table = model.rope(tokens.device)
    rope, target = rope_at(table, places), rope_at(table, order)
    for block in model.blocks:
        x = block(x, rope)
    k, v = model._shared(x, rope)
    y = model._queries(order, target)
    for block in model.cross_blocks:
        y = block(y, target, k, v)
    return model.head(model.norm(y))


def load(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return what a case says, and its tensors."""
    return json.loads(path.with_name(f"{path.name}.json").read_text()), load_file(
        path.with_name(f"{path.name}.safetensors")
    )


def cases(kind: str) -> list[Any]:
    """Return the cases of a kind, or all for "", as parameters of a test."""
    listed = [(path, json.loads(path.with_name(f"{path.name}.json").read_text())["kind"]) for path in CASES]
    return [pytest.param(path, id=path.name) for path, its_kind in listed if kind in ("", its_kind)]


def official_state(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("state."): value for name, value in tensors.items() if name.startswith("state.")}


def keywords(family: str, config: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """Return our keywords of a generator from the official ones; state: its tensors, or their shapes."""
    if family == "lpd":
        side, width = config["img_size"] // config["vqgan_stride"], config["decoder_embed_dim"]
        return dict(
            grid=(side, side),
            vocab_size=config["vqgan_vocab_size"],
            num_classes=config["class_num"],
            embed_dim=width,
            depth=config["decoder_depth"],
            num_heads=config["decoder_num_heads"],
            ffn_dim=int(width * config["mlp_ratio"]),
            norm_eps=config["norm_eps"],
        )
    if family == "rar":
        side = math.isqrt(config["image_seq_len"])
        return dict(
            grid=(side, side),
            vocab_size=config["codebook_size"],
            num_classes=config["condition_num_classes"],
            embed_dim=config["hidden_size"],
            depth=config["num_hidden_layers"],
            num_heads=config["num_attention_heads"],
            ffn_dim=config["intermediate_size"],
        )
    side, width = math.isqrt(config.get("block_size", 256)), config["dim"]
    if config.get("ffn_dim_multiplier") is None:
        ffn_dim = ffn_width(width, config.get("multiple_of", 256))
    else:
        ffn_dim = next(value for name, value in state.items() if name.endswith("w1.weight")).shape[0]
    return dict(
        grid=(side, side),
        vocab_size=config.get("vocab_size", 16384),
        num_classes=config.get("num_classes", 1000),
        embed_dim=width,
        depth=config["n_layer"] // (2 if family == "arpg" else 1),
        num_heads=config["n_head"],
        num_kv_heads=config.get("n_kv_head"),
        ffn_dim=ffn_dim,
        norm_eps=config.get("norm_eps", 1e-5),
        rope_base=config.get("rope_base", 10000),
    )


FAMILY = {"llamagen_gpt": "llamagen"}  # where the recorded name is not ours


def build(case: dict[str, Any], tensors: dict[str, Tensor]) -> Generator:
    """Return the model of a case with its weights."""
    state = official_state(tensors)
    model = create(FAMILY.get(case["family"], case["family"]), **keywords(case["family"], case["config"], state))
    weights.load_strict(model, weights.from_official(model, state))
    assert {k: list(v.shape) for k, v in weights.to_official(model).items()} == case["state_keys"]
    return model.train(case["mode"] == "train")


def check_gradients(model: Generator, case: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """The norms of all gradients, and some in full, after a backward pass."""
    grads = weights.to_official(model, {k: p.grad for k, p in model.named_parameters()})
    close(torch.stack([grads[k].norm() for k in case["grad_norm_names"]]), tensors["out.grad_norms"], case)
    recorded = {k.removeprefix("out.grad."): v for k, v in tensors.items() if k.startswith("out.grad.")}
    assert recorded
    for key, grad in recorded.items():
        close(grads[key], grad, case)


def check_generated(steps: list[Step], order: Tensor, case: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """The tokens of a generation in every order that is recorded, and its logits before and after guidance."""
    tokens, guided = steps[-1].tokens, torch.cat([step.logits for step in steps], 1)
    assert torch.equal(tokens, tensors["out.indices"])
    if "and temperature" in case["outputs"]["guided_logits"]:  # recorded after the division
        guided = guided / max(case["params"]["temperature"], 1e-5)
    close(guided, tensors["out.guided_logits"], case)
    if "out.tokens_per_step" in tensors:
        assert [step.positions.shape[1] for step in steps] == tensors["out.tokens_per_step"].tolist()
        assert torch.equal(orders.gather(tokens, order), tensors["out.indices_in_order"])
    if "out.raw_logits" in tensors:
        close(torch.cat([step.raw_logits for step in steps], 1), tensors["out.raw_logits"], case)
