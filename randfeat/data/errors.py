"""Faults of images."""

from __future__ import annotations


class UnreadableImage(ValueError):
    """A file that holds no picture, or not all of one. Its text is the reason, in a few words."""


class UnfitImage(ValueError):
    """An image that was read, of other channels or values than those that were asked for. Its text is a sentence.

    It is not left out as a damaged file is: most often all images of a data set are so, and a setting is wrong.
    """
