"""Pretraining: images to tokens, recipes, the loop that follows them, and how good samples are."""

from .batches import Batches, as_labels
from .crops import CentreCrops, Crops, RandomCrops, TenCrops
from .engine import History, Step, Validation, train, validate
from .evaluators import Encoded, Evaluator, Inception, Likelihoods, Seen
from .objective import Objective, Steered, cross_entropy
from .parallel import group
from .quality import Quality, measure_quality, pictures_of, see
from .recipe import Recipe, Running, Size, Steering, Training, read_recipe
from .runs import run
from .signals import Stopped
from .tokenising import fit_patches, import_tokens, tokenise

__all__ = [
    "Batches",
    "CentreCrops",
    "Crops",
    "Encoded",
    "Evaluator",
    "History",
    "Inception",
    "Likelihoods",
    "Objective",
    "Quality",
    "RandomCrops",
    "Recipe",
    "Running",
    "Seen",
    "Size",
    "Steered",
    "Steering",
    "Step",
    "Stopped",
    "TenCrops",
    "Training",
    "Validation",
    "as_labels",
    "cross_entropy",
    "fit_patches",
    "group",
    "import_tokens",
    "measure_quality",
    "pictures_of",
    "read_recipe",
    "run",
    "see",
    "tokenise",
    "train",
    "validate",
]
