"""Training of tokenizers on images: recipes, losses, the care of the codebook and runs on disk."""

from .config import TokenizerConfig, read_tokenizer_recipe
from .run import train_tokenizer, trained_size, with_pixels
from .task import Reconstruction

__all__ = [
    "Reconstruction",
    "TokenizerConfig",
    "read_tokenizer_recipe",
    "train_tokenizer",
    "trained_size",
    "with_pixels",
]
