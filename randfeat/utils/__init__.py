"""Helpers that know nothing of images or models: files, processes, progress bars, random numbers, oneDNN."""
