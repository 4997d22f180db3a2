"""Pretraining: recipes, and the loop that follows them."""

from .batches import Batches, as_labels
from .engine import History, Step, Validation, train, validate
from .objective import Objective, cross_entropy
from .parallel import group
from .recipe import Recipe, Running, Size, Training, read_recipe
from .runs import run
from .signals import Stopped

__all__ = [
    "Batches",
    "History",
    "Objective",
    "Recipe",
    "Running",
    "Size",
    "Step",
    "Stopped",
    "Training",
    "Validation",
    "as_labels",
    "cross_entropy",
    "group",
    "read_recipe",
    "run",
    "train",
    "validate",
]
