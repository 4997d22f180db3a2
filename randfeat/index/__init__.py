"""Search among the features of many images: faiss, with stable ids, paths and labels, in a directory that a crash
cannot leave half changed.

    index = randfeat.Index(features, names)     in memory
    index = Index.build("photos.index", features, names)    on disk, for any number of them
    index = Index.open("photos.index")

Images are read into an index, and an index is brought up to date with a folder, by `images`.
"""

from .index import Index
from .query import Filter, Match

__all__ = ["Filter", "Index", "Match"]
