"""Import of faiss beside torch; all other modules import faiss from here.

On macOS both packages contain an OpenMP of their own. The second one that is loaded ends the process ("OMP: Error #15")
unless a variable allows it, and threads of both at once crash. So it is allowed there, and faiss runs on one thread,
which never enters OpenMP's parallel regions. On Linux and Windows nothing is changed.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, TypeAlias

if sys.platform == "darwin":
    os.environ.setdefault("KMP_DUPLICATE_LIB_OK", "TRUE")  # must be set before the library is loaded

import faiss as library

if TYPE_CHECKING:
    FaissIndex: TypeAlias = library.Index

faiss: Any = library  # its type annotations are those of C++, which its Python side changes
if sys.platform == "darwin":
    faiss.omp_set_num_threads(1)
