"""Index of image features: nearest neighbours by faiss, with stable ids, paths and labels, in a directory that a
crash cannot leave half changed.

    index = randfeat.Index(features, names)     in memory
    index = Index.build("photos.index", features, names)    on disk, for any number of them
    index = Index.open("photos.index")

`images` builds an index of images, and brings one up to date with a folder.
"""

from .index import Index
from .query import Filter, Match

__all__ = ["Filter", "Index", "Match"]
