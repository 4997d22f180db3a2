"""Pretraining: images to tokens, recipes, and the loop that follows them."""

from .crops import CentreCrops, Crops, RandomCrops, TenCrops
from .engine import History, Training, train
from .evaluators import Encoded, Evaluator, Inception, Likelihoods, Seen
from .quality import Quality, measure_quality, pictures_of, see
from .recipe import Recipe, Size, read_recipe
from .tokenising import fit_patches, import_tokens, tokenise

__all__ = [
    "CentreCrops",
    "Crops",
    "Encoded",
    "Evaluator",
    "History",
    "Inception",
    "Likelihoods",
    "Quality",
    "RandomCrops",
    "Recipe",
    "Seen",
    "Size",
    "TenCrops",
    "Training",
    "fit_patches",
    "import_tokens",
    "measure_quality",
    "pictures_of",
    "read_recipe",
    "see",
    "tokenise",
    "train",
]
