"""Pretraining: images to tokens, recipes, and the loop that follows them."""

from .config import ControlConfig, Recipe, RuntimeConfig, Size, Training, read_recipe
from .crops import CentreCrops, Crops, RandomCrops, TenCrops
from .data import Batches, as_labels
from .objective import ControlObjective, Objective, cross_entropy
from .parallel import group
from .run import run
from .signals import Stopped
from .tokenize import fit_patches, import_tokens, tokenize
from .trainer import History, Step, Validation, train, validate

__all__ = [
    "Batches",
    "CentreCrops",
    "ControlConfig",
    "ControlObjective",
    "Crops",
    "History",
    "Objective",
    "RandomCrops",
    "Recipe",
    "RuntimeConfig",
    "Size",
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
    "read_recipe",
    "run",
    "tokenize",
    "train",
    "validate",
]
