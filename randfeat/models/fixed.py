"""A cache for steps of fixed shapes, which torch's compiler and CUDA graphs need.

Where a step stands in the sequence and how many of its inputs count are values of tensors here, not shapes: the same
program serves every step of one width, in which the inputs behind those that count are padding.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .layers import KVCache

ALIGNED = 8  # attention on GPUs wants a number of keys that this divides


class FixedCache(KVCache):
    """Preallocated keys and values of `depth` layers, for `capacity` inputs and one of padding.

    `at` says where the next call writes, and how many keys it attends to. What it writes behind its last input that
    counts is hidden from all later ones until it is written over.
    """

    def __init__(self, depth: int, capacity: int, device: torch.device) -> None:
        super().__init__(depth, capacity)
        self.slots_in_all = -(-(capacity + 1) // ALIGNED) * ALIGNED
        self.numbers = torch.arange(self.slots_in_all, device=device)  # scalars on the device: no host waits for them
        self.at(0, 0, self.slots_in_all)

    def at(self, first: int, padding: int, keys: int) -> None:
        """Let the next call write from slot `first` on, without the last `padding` of the inputs that are fed, and
        attend to the first `keys` slots.
        """
        self.first, self.padding, self.seen = self.numbers[first], self.numbers[padding], self.numbers[:keys]

    def follow(self, fed: int, device: torch.device, asked: int = 0, together: bool = False) -> Tensor | None:
        place = torch.arange(fed + asked, device=device)
        count = fed - self.padding
        # what is asked stands behind what counts of the fed, and padding in the slot for it
        behind = torch.where(place < fed, self.capacity, place - self.padding + self.first)
        self.slots = torch.where(place < count, place + self.first, behind).clamp(max=self.capacity)
        self.end = self.first + count
        return self.followed(device) if together else self.seen <= self.slots.unsqueeze(1)

    def followed(self, device: torch.device) -> Tensor | None:
        return (self.seen < self.end).unsqueeze(0)

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = self.keys[layer], self.values[layer]
        if keys is None or values is None:
            batch, heads, _, channels = k.shape
            keys, values = (k.new_zeros(batch, heads, self.slots_in_all, channels) for _ in range(2))
            self.keys[layer], self.values[layer] = keys, values
        assert self.slots is not None  # `follow` made them
        keys[:, :, self.slots] = k
        values[:, :, self.slots] = v
        return keys[:, :, : len(self.seen)], values[:, :, : len(self.seen)]

    def commit(self, count: int) -> None:
        """Do nothing: `at` says what is kept."""
