"""Training of tokenizers on images: recipes, losses, the care of the codebook and runs on disk."""

from .config import TokenizerConfig, read_tokenizer_recipe

__all__ = ["TokenizerConfig", "read_tokenizer_recipe"]
