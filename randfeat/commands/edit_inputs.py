"""Inputs of `inpaint`, `edit`, `outpaint` and `vary`: a picture, or many with the mask and the control of each."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from ..data.errors import SkippedImage


@dataclass(frozen=True)
class EditInput:
    """A picture to edit. name: of its folder below DIR, "" for DIR itself. mask, control: files, or None."""

    path: Path
    name: str
    mask: Path | None = None
    control: Path | None = None

    def args(self, args: argparse.Namespace) -> argparse.Namespace:
        """Return the arguments of the command for this picture alone."""
        own = {"image": self.path, "out": args.out / self.name}
        own |= {name: getattr(self, name) for name in ("mask", "control") if hasattr(args, name)}
        return argparse.Namespace(**(vars(args) | own))


def size(text: str) -> tuple[int, int]:
    """Return width and height of WIDTHxHEIGHT."""
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write WIDTHxHEIGHT, as in 512x256")
    return int(found[1]), int(found[2])


def edit_inputs(args: argparse.Namespace) -> tuple[list[EditInput], list[SkippedImage]]:
    """Return the pictures that the arguments name, and those without a mask or a control in the folder given for these.

    A mask or a control that is a file is for all pictures; in a folder each picture has one of its own name. Raises a
    FileNotFoundError for one that is not there, and a ValueError for a folder with two of a picture's name.
    """
    from ..data.errors import SkippedImage
    from ..data.sources.folder import find_images

    for name in ("mask", "control"):
        if (given := _path(args, name)) is not None and not given.exists():
            raise FileNotFoundError(f"--{name} {given}: there is no such file or folder, check the path")
    paths = find_images(args.images)
    if len(paths) == 1 and not args.images[0].is_dir():
        return [EditInput(paths[0], "", *(_for_all(args, name) for name in ("mask", "control")))], []
    found, skipped = [], []
    finders = {name: _finder(_path(args, name)) for name in ("mask", "control")}
    for path, name in zip(paths, folder_names(args.images, paths), strict=True):
        try:
            found.append(EditInput(path, name, finders["mask"](name), finders["control"](name)))
        except FileNotFoundError as error:
            skipped.append(SkippedImage(str(path), str(error)))
    if not found:
        raise ValueError(f"there is no picture to edit: {skipped[0].path} has {skipped[0].reason}")
    return found, skipped


def folder_names(given: Sequence[Path], paths: Sequence[Path]) -> list[str]:
    """Return a name for the folder of each picture: its path below the folder given, without suffix where one will do.

    Raises a ValueError for two pictures of one name.
    """
    folders = [folder for folder in given if folder.is_dir()]
    within = [
        next((path.relative_to(one) for one in folders if one in path.parents), Path(path.name)) for path in paths
    ]
    plain = [path.with_suffix("").as_posix() for path in within]
    counts = Counter(plain)
    names = [one if counts[one] == 1 else path.as_posix() for one, path in zip(plain, within, strict=True)]
    if twice := next((name for name, count in Counter(names).items() if count > 1), None):
        raise ValueError(f"two pictures are called {twice}: give the folder that both are in, or edit them apart")
    return names


def readable(
    args: argparse.Namespace, inputs: Sequence[EditInput]
) -> tuple[list[EditInput], list[SkippedImage], list[SkippedImage]]:
    """Return the pictures that can be read, with their masks and controls, and with reasons those that cannot be read
    and those that a mask, a box or a size does not fit.

    Raises a ValueError where it fits none, and an UnreadableImage where the only picture is none.
    """
    from ..data.errors import NoneReadable, SkippedImage, UnreadableImage
    from ..inference.editing.pictures import as_arrays

    found, skipped, unfit = [], [], []
    for one in inputs:
        try:
            (picture,) = as_arrays(one.path)
            _check(args, one, picture)
            found.append(one)
        except UnreadableImage as error:
            if not one.name:
                raise
            whose = "" if str(one.path) in str(error) else "its mask or control: "
            skipped.append(SkippedImage(str(one.path), f"{whose}{error.reason}"))
        except ValueError as error:
            if not one.name:
                raise
            unfit.append(SkippedImage(str(one.path), str(error)))
    if not found and unfit:
        raise ValueError(f"{unfit[0].path}: {unfit[0].reason}")
    if not found:
        raise NoneReadable(skipped)
    return found, skipped, unfit


def why_skipped(
    args: argparse.Namespace,
    without: Sequence[SkippedImage],
    unread: Sequence[SkippedImage],
    unfit: Sequence[SkippedImage] = (),
) -> str:
    """Return the reason of all skipped pictures in one clause.

    without: those that no mask or control was found for. unfit: those that a mask, a box or a size does not fit.
    """
    folders = [name for name in ("mask", "control") if (path := _path(args, name)) is not None and path.is_dir()]
    lacking = [f"have no {' or no '.join(folders)}"] if without else []
    sizes = ["have not the size for it"] if unfit else []
    unreadable = ["cannot be read"] if unread or not (without or unfit) else []
    return f"since they {', or '.join([*unreadable, *lacking, *sizes])}"


def _check(args: argparse.Namespace, one: EditInput, picture: np.ndarray) -> None:
    """Raise what is wrong with the mask, the control or the size of a picture, before any is edited."""
    from ..inference.editing import as_mask
    from ..inference.editing.pictures import as_arrays, sides_of

    own = one.args(args)
    if args.command in ("inpaint", "edit"):
        as_mask(own.mask if own.box is None else own.box, picture.shape[:2])
    elif args.command == "outpaint":
        sides_of(picture, own.size, own.sides or (0, 0, 0, 0))
    if one.control is not None:
        as_arrays(one.control)


def _for_all(args: argparse.Namespace, name: str) -> Path | None:
    """Return --mask or --control of a single picture."""
    path = _path(args, name)
    if path is not None and path.is_dir():
        try:
            return _finder(path)(args.images[0].stem)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{args.images[0]} has {error}: name a file") from None
    return path


def _path(args: argparse.Namespace, name: str) -> Path | None:
    given = getattr(args, name, None)
    return None if given is None else Path(given)


def _finder(given: Path | None) -> Callable[[str], Path | None]:
    """Return the function from the name of a picture to its mask or control."""
    if given is None or not given.is_dir():
        return lambda name: given
    from ..data.sources.folder import is_image, walk

    files: dict[str, list[str]] = {}
    for file in walk(given):
        files.setdefault(Path(file).with_suffix("").as_posix(), []).append(file)

    def find(name: str) -> Path:
        path = Path(name)
        plain = path.with_suffix("").as_posix() if is_image(path.name) else name  # not "photo" of "photo.1"
        for key in (name, plain, Path(plain).name):
            if len(there := files.get(key, ())) > 1:
                raise ValueError(f"{given} has {' and '.join(there)} for the picture {name}: keep one of them there")
            if there:
                return given / there[0]
        raise FileNotFoundError(f"no file of its name in {given}")

    return find
