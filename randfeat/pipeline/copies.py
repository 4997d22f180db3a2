"""Copies of a generator for use without gradients, which a pipeline keeps."""

from __future__ import annotations

from ..models import Generator, packed


class InferenceCopies:
    """Copies of a generator for use without gradients; see `randfeat.models.packed`.

    They share its parameters and are no part of the module that holds them, nor of what is pickled.
    """

    def __init__(self) -> None:
        self.compiled: Generator | None = None
        self.images: int | None = None  # that the compiled one reads at a time
        self._prepacked: tuple[list, Generator] | None = None

    def prepacked(self, generator: Generator) -> Generator:
        """Return the inference copy, on a CPU with prepacked weights, which is renewed after the generator changed."""
        if not packed.can_prepack(generator):
            return packed.inference_copy(generator)
        signature = packed.signature(generator)
        if self._prepacked is None or self._prepacked[0] != signature:
            self._prepacked = signature, packed.inference_copy(generator)
        return self._prepacked[1]

    def __getstate__(self) -> dict[str, None]:
        return {"compiled": None, "images": None, "_prepacked": None}  # both stay in their process
