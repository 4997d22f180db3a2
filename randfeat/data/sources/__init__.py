"""Images as people hold them: `open_source` recognises the form, and every form reads alike."""

from .base import Source, TokenSource
from .opening import open_source

__all__ = ["Source", "TokenSource", "open_source"]
