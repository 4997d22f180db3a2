"""Opening of a data set: recognise its form, and return the source for it."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Sequence
from glob import glob
from itertools import islice, product
from pathlib import Path
from typing import BinaryIO

from ...utils import missing
from ...utils.uris import is_remote
from ..decode import is_image_array
from . import folder, idx, remote, splits, table
from .base import Source, TokenSource
from .joined import join

FORMS = (
    "a folder of images, tar files or parquet files, a .tar, .parquet, .csv, .tsv, .jsonl, .txt or .lst file, a "
    "pattern such as shards-{000..009}.tar, IDX files, what save_to_disk wrote, a token store, or the name of a data "
    "set on the Hugging Face hub"
)
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")  # of an `imagefolder` of Hugging Face
TAR, PARQUET, ARRAY = ".tar", ".parquet", folder.ARRAY
HEADER = 1 << 16  # bytes of an array's file that hold its shape and type, at most
TRIED = 100  # arrays whose header is looked for, where the first ones are damaged
FILES = {TAR, PARQUET, ARRAY, *table.LISTS, *table.TABLES, *folder.SUFFIXES}  # no name on the hub ends in these
BRACES, RANGE = re.compile(r"\{([^{}]*)\}"), re.compile(r"(\d+)\.\.(\d+)")


def open_source(
    data: str | Path,
    split: str | Sequence[str] | None = None,
    labels: str | Path | None = None,
    label_column: str | None = None,
) -> Source | TokenSource:
    """Open a data set in any form.

    data: one of
    - a folder of images: flat, nested, or with a folder for each class, with splits above those or without. Arrays
      (.npy) of 3 axes, or of floats and 2 axes, are images too, where there are no others;
    - a list (.txt, .lst) or a table (.csv, .tsv, .jsonl, .parquet) of paths, relative to it, and of labels;
    - parquet files with images, a folder that `save_to_disk` wrote, an `imagefolder` with a metadata file, or the name
      of a data set on the Hugging Face hub, the one form that asks the network, unless a folder here is called alike;
    - tar files: WebDataset shards (`shards-{000..009}.tar`, `shards-*.tar`, a folder of them), ImageNet's class tars or
      the tar of these;
    - a folder of IDX files (MNIST, Fashion-MNIST, KMNIST, EMNIST), compressed or not, or one file of images;
    - of an object store, as a URI such as `s3://bucket/photos`, a folder of images, tar files and parquet files;
    - a token store, the trees and tars of `<class>/<i>.npy` that RandAR publishes, or RAR's jsonl of tokens.
    split: the part to open, several (a list, or a text with commas), or "all"; required where there are several. "val"
    and "validation" are the same.
    labels: a file of labels, see `labelling.labelled`. ImageNet's flat validation images find those of the development
    kit if it lies beside their folder. label_column: the column of labels in that table, or in the one that names the
    images, where it has a name of its own.

    Raises a FileNotFoundError or a ValueError that describes what was found instead.
    """
    from . import labelling

    source = _open_splits(str(data), split)
    if label_column is not None:
        source = labelling.by_column(source, label_column, None if labels is None else Path(labels))
    elif labels is not None:
        source = labelling.labelled(source, Path(labels))
    elif isinstance(source, Source):
        source = source if is_remote(data) else labelling.with_kit_nearby(source, Path(data))
    labelling.warn_of_unlabelled(source)
    return source


def _open_splits(name: str, split: str | Sequence[str] | None) -> Source | TokenSource:
    """Open one split, or several as one source."""
    wanted = [] if split is None else splits.named(split)
    if wanted == [splits.ALL]:
        try:
            return _open(name, None)
        except splits.SeveralSplits as error:
            wanted = [splits.ALL] if splits.ALL in error.splits else error.splits
    if len(wanted) < 2:
        return _open(name, wanted[0] if wanted else None)
    parts: dict[str, Source | TokenSource] = {}
    for part in wanted:
        source = _open(name, part)
        # "val" and "validation" are mostly two spellings of one split, which is read once
        alike = [one for other, one in parts.items() if splits.canonical(other) == splits.canonical(part)]
        if all(one.fingerprint() != source.fingerprint() for one in alike):
            parts[part] = source
    return join(name, parts)


def _open(name: str, split: str | None) -> Source | TokenSource:
    if not name:
        raise ValueError(f"no data set is named: expected {FORMS}")
    if is_remote(name):
        return _open_remote(name, split)
    path = Path(name)
    if path.is_dir():
        return _open_folder(path, split)
    if path.is_file():
        return _open_file(path, split)
    if re.search(r"[*?{\[]", name):
        return _open_pattern(name, split)
    no_file = path.suffix.lower() not in FILES and not idx.is_idx(path.name)
    if no_file and re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", name):
        from .huggingface import open_hub

        missing.refuse_local(name)
        return open_hub(name, split)
    raise FileNotFoundError(f"there is no {name}{missing.did_you_mean(path) or f': expected {FORMS}'}")


def _open_file(path: Path, split: str | None) -> Source | TokenSource:
    if idx.is_idx(path.name):
        return idx.open_file(path, split)
    suffix = path.suffix.lower()
    if suffix == TAR:
        return _open_tars(str(path), path.parent, [path.name], split)
    if suffix == PARQUET and _holds_images(path):
        from .parquet import open_parquet

        if split is not None:
            splits.choose(str(path), filter(None, [splits.in_file_name(path.name)]), split)
        return open_parquet(str(path), path.parent, [path.name])
    if suffix == ".jsonl":
        from .tokens import TokenLines

        if TokenLines.is_token_lines(path):
            return _unsplit(TokenLines(path), split)
    if suffix in (*table.LISTS, *table.TABLES):
        return table.open_table(path, split)
    raise ValueError(f"{path} is no data set: expected {FORMS}")


def _open_pattern(pattern: str, split: str | None) -> Source | TokenSource:
    files = _expand(pattern)
    root = Path(os.path.commonpath([file.parent for file in files]))
    names = [file.relative_to(root).as_posix() for file in files]
    kinds = {file.suffix.lower() for file in files}
    if kinds == {TAR}:
        return _open_tars(pattern, root, names, split)
    if kinds == {PARQUET}:
        return _open_parquets(pattern, root, names, split)
    raise ValueError(f"{pattern} names files of the kinds {', '.join(sorted(kinds))}: expected .tar or .parquet alone")


def _open_remote(name: str, split: str | None) -> Source | TokenSource:
    """Open what lies on an object store."""
    found = remote.find(name)
    files = [*found.states]
    if re.search(r"[*?{\[]", name):
        files = [file for one in _unbraced(name) for file in remote.matching(found, one)]
    of_kind = {kind: [file for file in files if file.lower().endswith(kind)] for kind in (TAR, PARQUET)}
    of_kind["images"] = [file for file in files if folder.is_image(file.rpartition("/")[2])]
    kinds = [kind for kind, some in of_kind.items() if some]
    if len(kinds) != 1:
        what = " and ".join(kinds) or "neither images nor tar or parquet files"
        raise ValueError(f"{name} holds {what}: name the files of one kind; copy data of other forms to a disk")
    files = of_kind[kinds[0]]
    if kinds == [TAR]:
        return _open_tars(name, found.root, files, split)
    if kinds == [PARQUET]:
        return _open_parquets(name, found.root, files, split)
    root = Path(found.root.path)  # for names in messages
    listed = folder.open_folder(root, files, folder.part_of(root, files, split))
    return remote.RemoteFiles(name, found, listed.files, listed.labels, listed.classes)


def _unbraced(pattern: str) -> Iterable[str]:
    """Yield the texts that a pattern with braces stands for, in order."""
    choices = [_choices(inside) for inside in BRACES.findall(pattern)]
    frame = BRACES.split(pattern)[::2]
    for chosen in product(*choices):
        yield frame[0] + "".join(choice + rest for choice, rest in zip(chosen, frame[1:], strict=True))


def _expand(pattern: str) -> list[Path]:
    """Return the files of a pattern, `shards-{000..009}.tar` or `shards-*.tar`, in order.

    Raises a FileNotFoundError where no file has one of the names that the braces make.
    """
    found: list[Path] = []
    for one in _unbraced(pattern):
        there = sorted(Path(path) for path in glob(one))  # noqa: PTH207  an absolute pattern
        if not there:
            raise FileNotFoundError(f"there is no file {one}, which {pattern} names: check the pattern")
        found += there
    return found


def _choices(inside: str) -> list[str]:
    """Return the texts that braces stand for, by what is inside: `000..009` or `a,b`."""
    numbers = RANGE.fullmatch(inside)
    if numbers is None:
        return inside.split(",")
    first, last = numbers.groups()
    return [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]


def _open_folder(root: Path, split: str | None) -> Source | TokenSource:
    inside = {entry.name for entry in os.scandir(root)}
    if {"tokens.npy", "rows.parquet"} <= inside and "meta.json" not in inside:
        what_then = "run `randfeat tokenize` again, or copy all of it"
        raise ValueError(f"{root} is a token store without its meta.json: {what_then}")
    if {"tokens.npy", "meta.json"} <= inside:
        from .tokens import StoredTokens

        return _unsplit(StoredTokens(root), split)
    if {"dataset_info.json", "state.json"} <= inside or "dataset_dict.json" in inside:
        from .huggingface import open_saved

        return open_saved(root, split)
    found: dict[str, list[str]] = {TAR: [], PARQUET: [], ARRAY: [], "": []}
    suffixes = {*folder.SUFFIXES, *folder.RAW, TAR, PARQUET, ARRAY}
    for file in folder.without_raw(root, folder.walk(root, suffixes)):
        suffix = os.path.splitext(file)[1].lower()  # noqa: PTH122  fast
        found[suffix if suffix in found else ""].append(file)
    images, tars, arrays = found[""], found[TAR], found[ARRAY]
    idx_parts = idx.find_parts(root)
    parquets = [file for file in found[PARQUET] if _holds_images(root / file)]
    kinds = (("images", images), ("tar files", tars), ("parquet files of images", parquets), ("IDX files", idx_parts))
    several = [f"{len(files):,} {kind}" for kind, files in kinds if files]
    if len(several) > 1:
        raise ValueError(f"{root} holds {' and '.join(several)}: name the folder or the files of one kind")
    if images:
        return _open_images(root, images, split)
    if tars:
        return _open_tars(str(root), root, tars, split)
    if parquets:
        return _open_parquets(str(root), root, parquets, split)
    if idx_parts:
        return idx.open_folder(str(root), idx_parts, split)
    if arrays:
        from .tokens import TokenFiles

        if _are_images((root / file).open("rb") for file in arrays):
            return _open_images(root, arrays, split)
        return _unsplit(TokenFiles(root, arrays), split)
    raise ValueError(f"{root} holds no images: expected {FORMS}")


def _open_images(root: Path, files: Sequence[str], split: str | None) -> Source:
    """Return a folder of images, by its metadata file where there is one."""
    if metadata := _metadata(root):
        return table.open_table(metadata, split)
    part = folder.part_of(root, files, split)
    metadata = _metadata(root / part)
    return table.open_table(metadata) if metadata else folder.open_folder(root, files, part)


def _metadata(root: Path) -> Path | None:
    return next((root / name for name in METADATA if (root / name).is_file()), None)


def _open_tars(name: str, root: remote.AnyPath, files: Sequence[str], split: str | None) -> Source | TokenSource:
    from .tar import head, index, open_tars

    tars = {file: root / file for file in _of_split(name, files, split)}
    members = [index(tar) for tar in tars.values()]
    if any(folder.is_image(member.file) for inside in members for member in inside):
        return open_tars(name, tars, members)
    arrays = [(tar, member) for tar, inside in zip(tars.values(), members, strict=True) for member in inside]
    arrays = [(tar, member) for tar, member in arrays if member.name.endswith(ARRAY)]
    if arrays:
        from .tokens import TokenTars

        if _are_images(io.BytesIO(head(tar, member, HEADER)) for tar, member in arrays):
            return open_tars(name, tars, members, {ARRAY})
        return TokenTars(name, tars, members)
    raise ValueError(f"the tar files of {name} hold neither images nor .npy files of tokens or images")


def _are_images(arrays: Iterable[BinaryIO]) -> bool:
    """Return whether .npy files are images rather than tokens, by the first that has a header."""
    for file in islice(arrays, TRIED):
        with file:
            if (found := is_image_array(file)) is not None:
                return found
    return False


def _open_parquets(name: str, root: remote.AnyPath, files: Sequence[str], split: str | None) -> Source:
    from .parquet import open_parquet

    return open_parquet(name, root, _of_split(name, files, split))


def _of_split(name: str, files: Sequence[str], split: str | None) -> list[str]:
    """Return the files of a split, where every file name holds the name of its split; else all of them."""
    parts = [splits.in_file_name(file) for file in files]
    if None in parts and split is None:
        return list(files)
    chosen = splits.choose(name, (part for part in parts if part is not None), split)
    return [file for file, part in zip(files, parts, strict=True) if part == chosen]


def _holds_images(path: Path) -> bool:
    """Return whether a parquet file has a column of images."""
    from pyarrow.parquet import read_schema

    from ...utils.parquet import damage_told
    from .parquet import image_column

    with damage_told(path):
        return image_column(read_schema(path)) is not None


def _unsplit(source: TokenSource, split: str | None) -> TokenSource:
    """Return a source without splits; a ValueError where one was asked for."""
    if split is not None:
        splits.choose(source.name, (), split)
    return source
