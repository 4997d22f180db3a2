"""Sources of tokens: a token store, the trees and tars of `<class>/<i>.npy` that RandAR publishes, and RAR's jsonl."""

from __future__ import annotations

import hashlib
import io
import json
import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ...utils import arrays
from ..decode import UnreadableImage
from ..labels import as_id
from ..token_store import TOKENS, TokenStore
from .base import Labels, State, TokenSource, check_unique, indexed, numbered, printable, size_of, state_of
from .remote import AnyPath
from .tar import Member, TarRows

SUFFIX = ".npy"
TOKENS_OF_LINE = "tokens"


class StoredTokens(TokenSource):
    """The rows of a `token_store.TokenStore`."""

    def __init__(self, directory: Path) -> None:
        store = TokenStore.open(directory)
        super().__init__(str(directory), store.paths, store.labels, store.classes)
        self.grid, self.vocab_size, self.tokenizer = store.grid, store.vocab_size, store.tokenizer
        self.digest, self._tokens = store.meta["files"][TOKENS], store.tokens

    def tokens(self, i: int) -> np.ndarray:
        if self._tokens is None:
            self._tokens = TokenStore.open(self.name).tokens
        return self._tokens[i]

    def sizes(self) -> Iterable[int]:
        return [self.tokens(0).nbytes] * len(self)

    def fingerprint(self) -> str:
        """Return a SHA-256 over the rows and over the digest of the tokens, on which sizes do not depend."""
        return hashlib.sha256(f"{super().fingerprint()} {self.digest}".encode()).hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_tokens": None}  # another process maps the tokens itself


class ArrayTokens(TokenSource):
    """One .npy file for each image: integers (N,), (crops, N) or (1, crops, N), of a square grid."""

    def __init__(self, name: str, paths: Sequence[str], labels: Labels, classes: list[str] | None) -> None:
        super().__init__(name, paths, labels, classes)
        try:
            n = self._array(0).shape[1]
        except UnreadableImage as error:
            raise ValueError(f"{paths[0]} of {name} holds no tokens: {error}") from None
        side = math.isqrt(n)
        if n != side * side:
            raise ValueError(f"{name} has {n} tokens an image: expected those of a square grid")
        self.grid = side, side

    @abstractmethod
    def file(self, i: int) -> bytes:
        """Return the bytes of the file of row i; an UnreadableImage where there is none."""

    def content(self, i: int) -> bytes | None:
        try:
            return self.file(i)
        except UnreadableImage:
            return None

    def tokens(self, i: int) -> np.ndarray:
        tokens, n = self._array(i), self.grid[0] * self.grid[1]
        if tokens.shape[1] != n:
            raise UnreadableImage(f"{tokens.shape[1]} tokens, where others have {n}")
        return tokens

    def _array(self, i: int) -> np.ndarray:
        content = self.file(i)
        try:
            arrays.header_of(content)
            array = np.load(io.BytesIO(content), allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise UnreadableImage(f"damaged ({str(error).splitlines()[0]})") from error
        if array.dtype.kind not in "iu" or not 1 <= array.ndim <= 3 or not array.size:
            raise UnreadableImage(f"{array.dtype} of shape {array.shape}, expected integers (crops, N)")
        return array.reshape(-1, array.shape[-1])


class TokenFiles(ArrayTokens):
    """A folder of `<class>/<i>.npy`. Class folders that are all numbers are class indices."""

    def __init__(self, root: Path, files: Sequence[str]) -> None:
        """files: relative to `root`."""
        self.root, self.files = root, files
        paths = [printable(file) for file in files]
        check_unique(str(root), paths)
        super().__init__(str(root), paths, *_labels(files))

    def file(self, i: int) -> bytes:
        try:
            return (self.root / self.files[i]).read_bytes()
        except FileNotFoundError:
            raise UnreadableImage("no such file") from None

    def sizes(self) -> Iterable[int]:
        return (size_of(self.root / file) for file in self.files)

    def states(self) -> Iterable[State]:
        return (state_of(self.root / file) for file in self.files)


class TokenLines(TokenSource):
    """Token lines as RAR publishes them: a .jsonl file with `{"class_id": 3, "tokens": [17, 4, ...]}` in each line.

    tokens may be a list of crops; the grid is square.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._offsets = path, []
        labels: list[int | None] = []
        with path.open("rb") as file:
            for line in file:
                content = _line(path, len(labels), line)
                labels.append(content.get("class_id"))
                self._offsets.append(file.tell() - len(line))
        names = [f"{path.name}:{number}" for number in range(1, len(labels) + 1)]
        super().__init__(str(path), names, *numbered(labels))
        n = self.tokens(0).shape[1]
        side = math.isqrt(n)
        if n != side * side:
            raise ValueError(f"{path} has {n} tokens an image: expected those of a square grid")
        self.grid = side, side

    @staticmethod
    def is_token_lines(path: Path) -> bool:
        """Return whether the first line of a file holds tokens."""
        with path.open("rb") as file:
            try:
                return TOKENS_OF_LINE in json.loads(file.readline())
            except (ValueError, TypeError, RecursionError):
                return False

    def tokens(self, i: int) -> np.ndarray:
        with self.path.open("rb") as file:
            file.seek(self._offsets[i])
            array = np.array(_line(self.path, i, file.readline())[TOKENS_OF_LINE])
        if array.dtype.kind not in "iu" or not 1 <= array.ndim <= 2 or not array.size:
            raise UnreadableImage(f"{array.dtype} of shape {array.shape}, expected integers (crops, N)")
        return array.reshape(-1, array.shape[-1])

    def content(self, i: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(self._offsets[i])
            return file.readline()

    def sizes(self) -> Iterable[int]:
        return [self.path.stat().st_size] * len(self)

    def states(self) -> Iterable[State]:
        return [state_of(self.path)] * len(self)


def _line(path: Path, number: int, line: bytes) -> dict[str, Any]:
    """Return the JSON object of a line, counted from 0; a ValueError for one without tokens."""
    try:
        content = json.loads(line)
        content[TOKENS_OF_LINE]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ValueError(
            f"line {number + 1} of {path} is no JSON object with {TOKENS_OF_LINE}: is it cut off?"
        ) from None
    return content


class TokenTars(ArrayTokens):
    """Tar files of `<class>/<i>.npy`."""

    def __init__(self, name: str, tars: Mapping[str, AnyPath], members: Sequence[Sequence[Member]]) -> None:
        arrays = [[member for member in inside if member.name.endswith(SUFFIX)] for inside in members]
        self.rows = TarRows(name, tars, arrays)
        super().__init__(name, self.rows.paths, *_labels([member.name for inside in arrays for member in inside]))

    def file(self, i: int) -> bytes:
        return self.rows.read(i)

    def sizes(self) -> Iterable[int]:
        return self.rows.sizes()

    def states(self) -> Iterable[State]:
        return self.rows.states()


def _labels(files: Sequence[str]) -> tuple[Labels, list[str] | None]:
    folders = [PurePosixPath(file).parent.name for file in files]
    if not all(folders):
        return None, None
    if all(as_id(name) is not None for name in folders):
        return numbered(folders)
    classes = sorted({*folders})
    return indexed(folders, classes), classes
