"""Words about pictures of images of any number of channels."""

from __future__ import annotations


def about_channels(channels: int) -> str:
    """Return a sentence about the channels that `images.preview` shows, "" where it shows all."""
    if channels in (1, 3):
        return ""
    kept = "the first three, as red, green and blue" if channels > 3 else "the first"
    return f"Of {channels} channels pictures show {kept}."
