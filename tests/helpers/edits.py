"""Strategies of hypothesis for edits: masks and framings of any kind."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from randfeat.inference.editing import Framing

FITS = ("around", "whole", "tile")
MASKS = arrays(bool, st.tuples(st.integers(1, 13), st.integers(1, 17)))
FRAMINGS = st.builds(
    Framing,
    st.sampled_from(FITS),
    st.sampled_from([0, 0.3, 1]),
    cover=st.just(0),
    grow=st.integers(0, 2),
    overlap=st.sampled_from([0, 0.5, 0.9]),
    feather=st.integers(0, 3),
)
