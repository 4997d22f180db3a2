"""Matrix products in float32 as fast as the processor does them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x @ weight.T + bias` (..., m) of x (..., d) and weight (m, d) of one type and any strides, without gradients.

    On a CPU float32 goes through oneDNN, which torch brings along but asks for bfloat16 alone. MKL, which it asks for
    float32, takes twice as long on processors that are not Intel's.
    """
    if x.device.type == "cpu" and x.dtype == torch.float32 and has_onednn():
        bias = None if bias is None else bias.contiguous()  # strides of a bias are not looked at
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return F.linear(x, weight, bias)


def has_onednn() -> bool:
    """Return whether torch brings it along, with the one operation that takes float32."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
