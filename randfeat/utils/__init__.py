"""Utilities that depend on no other part of randfeat: files, processes, progress bars, random numbers, oneDNN."""
