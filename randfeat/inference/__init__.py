"""Calls of a generator on tokens: sampling, reading features out, likelihood and editing."""
