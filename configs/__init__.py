"""Recipes of pretraining runs: one commented YAML file for each."""
