"""Tokens that tell which image they are of."""

import copy

import torch


def data(count=20, vocab=7, length=6):
    """(n, N) tokens that are their row in base V; labels 0, 1, 2, 0, 1, 2, ..."""
    rows = torch.arange(count)
    digits = [rows // vocab**i % vocab for i in range(length)]
    return torch.stack(digits, 1), rows % 3


def weights_of(model):
    return copy.deepcopy(model.state_dict())


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a) and a.keys() == b.keys()
