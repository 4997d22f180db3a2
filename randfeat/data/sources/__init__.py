"""Sources: data sets of images or tokens in any form, which `open_source` recognises, with one interface."""

from .base import Source, TokenSource
from .opening import open_source

__all__ = ["Source", "TokenSource", "open_source"]
