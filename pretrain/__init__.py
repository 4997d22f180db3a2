"""Pretraining: images to tokens, recipes, and the loop that follows them."""

from .crops import CentreCrops, Crops, RandomCrops, TenCrops
from .engine import History, Training, train
from .recipe import Recipe, Size, read_recipe
from .tokenising import fit_patches, import_tokens, tokenise

__all__ = [
    "CentreCrops",
    "Crops",
    "History",
    "RandomCrops",
    "Recipe",
    "Size",
    "TenCrops",
    "Training",
    "fit_patches",
    "import_tokens",
    "read_recipe",
    "tokenise",
    "train",
]
