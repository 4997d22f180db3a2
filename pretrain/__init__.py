"""Pretraining: recipes, and the loop that follows them."""

from .engine import History, Training, train
from .recipe import Recipe, Size, read_recipe

__all__ = ["History", "Recipe", "Size", "Training", "read_recipe", "train"]
