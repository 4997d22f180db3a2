"""The recorded outputs of the official implementations; $RANDFEAT_GOLDEN names another folder of the same format."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from randfeat.models import Generator, orders
from randfeat.models.layers import rope_at

GOLDEN = Path(os.environ.get("RANDFEAT_GOLDEN", Path(__file__).parents[3] / "shared" / "golden"))
INDEX = GOLDEN / "INDEX.json"
CASES = json.loads(INDEX.read_text()) if INDEX.is_file() else []
needs_golden = pytest.mark.skipif(
    not CASES, reason=f"no recorded outputs at {GOLDEN}; RANDFEAT_GOLDEN names another folder"
)
KEYS = sorted((GOLDEN / "keys").glob("*.json"))


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
    y = model._queries(order)
    for block in model.cross_blocks:
        y = block(y, target, k, v)
    return model.head(model.norm(y))
