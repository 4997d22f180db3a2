"""Recipes: one commented YAML file per run that can be repeated."""
