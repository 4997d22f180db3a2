"""Pickles of plain values, read without running anything that they name."""

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def read_pickle(path: str | Path) -> Any:
    """What the file holds, if that is numbers, text, lists, tuples, dictionaries, sets and numpy arrays of these.

    Anything else in it is refused with a ValueError before it is looked up, so that a file from the network cannot run
    code. Text of Python 2 is read as Latin-1.
    """
    with Path(path).open("rb") as file:
        try:
            return _Unpickler(file, encoding="latin1").load()
        except _Refused as refused:
            raise ValueError(
                f"{path} asks for {refused}, expected plain containers and numpy arrays only; do not trust this file."
            ) from None
        except Exception as error:  # broken bytes surface as any of a dozen exceptions
            raise ValueError(f"{path} is no readable pickle ({error}); download it again.") from error


class _Refused(Exception):
    pass


class _Type:
    """Stands for numpy.dtype, whose own __setstate__ believes whatever a file says about memory."""

    def __init__(self, code: str, *_: Any) -> None:
        if not re.fullmatch(r"[biufcSU]\d+", code):
            raise _Refused(f"arrays of type {code!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array(np.ndarray):
    """Stands for numpy.ndarray in the same way. Without arguments, so that a file cannot ask for memory."""

    def __new__(cls) -> "_Array":
        return np.empty(0, dtype=np.uint8).view(cls)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, data = state
        values = _from_buffer(data, kind, shape, "F" if fortran else "C")
        believed: Any = (1, values.shape, values.dtype, False, values.tobytes())
        super().__setstate__(believed)


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _from_buffer(data: bytes | str, kind: _Type, shape: tuple[int, ...], order: Any) -> NDArray[Any]:
    held = data.encode("latin1") if isinstance(data, str) else data  # Python 2 had bytes for text
    return np.frombuffer(held, kind.dtype).reshape(shape, order=order)


def _scalar(kind: _Type, data: bytes | str) -> Any:
    return _from_buffer(data, kind, (1,), "C")[0]


def _encode(text: str, encoding: str) -> bytes:
    """How protocol 2 holds bytes."""
    if encoding != "latin1":
        raise _Refused(f"bytes in the encoding {encoding!r}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    return b""


# what numpy writes for arrays and numbers at protocols 2 to 5, whose modules were renamed in version 2
_NUMPY: dict[str, Any] = {
    "_reconstruct": _reconstruct,
    "_frombuffer": _from_buffer,
    "scalar": _scalar,
    "dtype": _Type,
    "ndarray": _Array,  # an argument of _reconstruct
}
_PLAIN: dict[str, Any] = {"set": set, "frozenset": frozenset, "complex": complex, "bytes": _no_bytes}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "numpy" and name in _NUMPY:
            return _NUMPY[name]
        if module in ("builtins", "__builtin__") and name in _PLAIN:
            return _PLAIN[name]
        if (module, name) == ("_codecs", "encode"):
            return _encode
        raise _Refused(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused(f"the outside object {pid!r}")
