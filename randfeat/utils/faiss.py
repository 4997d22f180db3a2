"""faiss beside torch. Whoever needs faiss takes it from here.

On macOS the packages of both bring an OpenMP of their own. The second one that is loaded ends the process ("OMP: Error
#15") unless it is told not to, and threads of both at once crash. So there the second may load, and faiss runs on one
thread, which never enters OpenMP's parallel regions. Linux and Windows are left alone.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, TypeAlias

if sys.platform == "darwin":
    os.environ.setdefault("KMP_DUPLICATE_LIB_OK", "TRUE")  # is looked at when the library is loaded

import faiss as library

if TYPE_CHECKING:
    FaissIndex: TypeAlias = library.Index

faiss: Any = library  # its types are those of C++, before its Python side changes them
if sys.platform == "darwin":
    faiss.omp_set_num_threads(1)
