"""Published sizes by name: the model, and its keywords that depend on neither tokenizer nor data.

From the papers: RandAR arXiv 2412.01827, ARPG arXiv 2503.10568, LlamaGen arXiv 2406.06525. ARPG's depth is that of each
half. There are no public weights of RandAR-XXL.
"""

from __future__ import annotations

from typing import Any


def _size(model: str, depth: int, num_heads: int, embed_dim: int) -> tuple[str, dict[str, Any]]:
    return model, {"embed_dim": embed_dim, "depth": depth, "num_heads": num_heads}


SIZES: dict[str, tuple[str, dict[str, Any]]] = {
    "arpg_l": _size("arpg", 12, 16, 1024),
    "arpg_xl": _size("arpg", 18, 20, 1280),
    "arpg_xxl": _size("arpg", 24, 24, 1536),
    "llamagen_b": _size("llamagen", 12, 12, 768),
    "llamagen_l": _size("llamagen", 24, 16, 1024),
    "llamagen_xl": _size("llamagen", 36, 20, 1280),
    "llamagen_xxl": _size("llamagen", 48, 24, 1536),
    "llamagen_3b": _size("llamagen", 24, 32, 3200),
    "randar_l": _size("randar", 24, 16, 1024),
    "randar_xl": _size("randar", 36, 20, 1280),
    "randar_xxl": _size("randar", 48, 24, 1536),
}
