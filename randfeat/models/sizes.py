"""Published sizes by name: the model, and its keywords that depend on neither tokenizer nor data.

From the papers: RandAR arXiv 2412.01827, ARPG arXiv 2503.10568, LPD arXiv 2507.01957, RAR arXiv 2411.00776, LlamaGen
arXiv 2406.06525. ARPG's depth is that of each half. There are no public weights of RandAR-XXL.
"""

from __future__ import annotations

from typing import Any


def _size(model: str, depth: int, num_heads: int, embed_dim: int, **more: int) -> tuple[str, dict[str, Any]]:
    return model, {"embed_dim": embed_dim, "depth": depth, "num_heads": num_heads, **more}


SIZES: dict[str, tuple[str, dict[str, Any]]] = {
    "arpg_l": _size("arpg", 12, 16, 1024),
    "arpg_xl": _size("arpg", 18, 20, 1280),
    "arpg_xxl": _size("arpg", 24, 24, 1536),
    "llamagen_b": _size("llamagen", 12, 12, 768),
    "llamagen_l": _size("llamagen", 24, 16, 1024),
    "llamagen_xl": _size("llamagen", 36, 20, 1280),
    "llamagen_xxl": _size("llamagen", 48, 24, 1536),
    "llamagen_3b": _size("llamagen", 24, 32, 3200),
    "lpd_l": _size("lpd", 24, 16, 1024),
    "lpd_xl": _size("lpd", 36, 20, 1280),
    "lpd_xxl": _size("lpd", 48, 24, 1536),
    "randar_l": _size("randar", 24, 16, 1024),
    "randar_xl": _size("randar", 36, 20, 1280),
    "randar_xxl": _size("randar", 48, 24, 1536),
    "rar_b": _size("rar", 24, 16, 768),
    "rar_l": _size("rar", 24, 16, 1024),
    "rar_xl": _size("rar", 32, 16, 1280),
    "rar_xxl": _size("rar", 40, 16, 1408, ffn_dim=6144),
}
