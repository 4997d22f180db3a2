"""Limits of the service: what one request may hold, how long it may take, and how many may wait."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ..utils.checks import check_whole_number


@dataclass(frozen=True)
class Limits:
    """Limits of a service. Raises a ValueError unless each is a whole number from 1.

    size: bytes of a request. pixels: of an image, before it is scaled. images: of a request, sent or sampled. seconds:
    from the head of a request to its answer. requests: that are being read or answered at a time. queue: images that
    wait for the network. batch: images that the network takes at a time.
    """

    size: int = 16 << 20
    pixels: int = 32_000_000
    images: int = 64
    seconds: int = 30
    requests: int = 128
    queue: int = 1024
    batch: int = 64

    def __post_init__(self) -> None:
        for field in fields(self):
            check_whole_number(field.name, getattr(self, field.name), 1)
