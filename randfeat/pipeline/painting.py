"""The jobs themselves: pictures in, pictures out. Methods of `Pipeline` with the same names call them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..data import conditions
from ..data import images as data
from ..data.decode import MODES
from ..inference.editing import canvas, masks
from ..inference.editing.framing import Framing, View
from ..inference.likelihood import guess_class
from ..inference.sampling import UNKNOWN, Sampling
from ..inference.schedules import Guidance
from ..models import orders
from ..utils import rng
from ..utils.checks import check_whole_number, is_whole_number

if TYPE_CHECKING:
    from ..data.labels import Label
    from .pipeline import Pipeline

GREY = 0.5  # of what is not decoded yet
EDIT_GUIDANCE = 2.0


@dataclass(frozen=True)
class Task:
    """A picture, uint8 (H, W) or (H, W, 3), with what is to be painted, bool (H, W), and how the model sees it."""

    picture: np.ndarray
    mask: np.ndarray
    view: View
    anew: np.ndarray  # tokens, bool of the view's grid
    feather: int = 0
    hide: bool = True
    condition: Tensor | None = None  # images (1, c, H, W) that steer it, as large as `pixels`

    def pixels(self, stride: int, channels: int) -> Tensor:
        """What the model sees, with nothing in it of what is hidden: (1, channels, H, W) in [0, 1]."""
        seen = self.view.of(self.picture)
        if self.hide:
            seen = masks.fill(seen, self.view.of(self.mask))
        return self._scaled(seen, stride, channels)

    def steered(self, control: np.ndarray, kind: str, stride: int, channels: int) -> Task:
        """Return the same with a condition of that kind, of a picture as large as its own."""
        return replace(self, condition=conditions.make(self._scaled(self.view.of(control), stride, channels), kind))

    def _scaled(self, seen: np.ndarray, stride: int, channels: int) -> Tensor:
        """Return a view as the tokenizer takes it: (1, channels, H, W) in [0, 1]."""
        picture = self.view.scaled(seen, stride).convert(MODES[channels])
        rows, columns = self.view.grid
        return (
            torch.from_numpy(np.array(picture).reshape(rows * stride, columns * stride, -1)).movedim(2, 0)[None] / 255
        )

    def finished(self, made: Tensor) -> Image.Image:
        """Return the picture with what was made (channels, H, W) in the place of what is masked."""
        mode = "L" if self.picture.ndim == 2 else "RGB"
        ours, theirs = self.view.inside((self.mask.shape[0], self.mask.shape[1]))
        painted = self.view.back(data.to_pil(made.float()).convert(mode))[theirs]
        picture = self.picture.copy()
        picture[ours] = masks.paste(picture[ours], painted, self.mask[ours], self.feather)
        return Image.fromarray(picture)


def inpaint(
    model: Pipeline,
    images: data.Images,
    mask: masks.Mask | Sequence[masks.Mask],
    label: Label | Sequence[Label],
    samples: int,
    seed: int | Iterable[int],
    sampling: Sampling,
    framing: Framing,
    guess: int,
    batch_size: int,
    control: data.Images | None = None,
    control_type: str | None = None,
) -> list[Image.Image]:
    """See `Pipeline.inpaint`."""
    pictures = arrays(images)
    each = masks.as_masks(mask, [picture.shape[:2] for picture in pictures])
    tasks = [_task(model, *one, framing) for one in zip(pictures, each, strict=True)]
    tasks = steered(model, pictures, tasks, control, control_type)
    return _paint_all(model, pictures, tasks, label, samples, seed, sampling, framing, guess, batch_size)


def outpaint(
    model: Pipeline,
    images: data.Images,
    size: tuple[int, int] | None,
    sides: tuple[int, int, int, int],
    label: Label | Sequence[Label],
    samples: int,
    seed: int | Iterable[int],
    sampling: Sampling,
    framing: Framing,
    guess: int,
    batch_size: int,
    control: data.Images | None = None,
    control_type: str | None = None,
) -> list[Image.Image]:
    """See `Pipeline.outpaint`. sides: left, top, right, bottom."""
    pictures: list[np.ndarray] = []
    tasks: list[Task | None] = []
    for picture in arrays(images):
        extended, mask, corner = extend(picture, sides_of(picture, size, sides))
        pictures.append(extended)
        tasks.append(_task(model, extended, mask, framing, corner))
    tasks = steered(model, pictures, tasks, control, control_type)
    return _paint_all(model, pictures, tasks, label, samples, seed, sampling, framing, guess, batch_size)


def sides_of(picture: np.ndarray, size: tuple[int, int] | None, sides: Sequence[int]) -> Sequence[int]:
    """Pixels to add on the left, at the top, on the right and at the bottom. size: width and height with the picture in
    the middle, instead of sides.
    """
    height, width = picture.shape[:2]
    if size is not None:
        if any(sides):
            raise ValueError("outpainting takes a size or sides, not both: leave one out")
        if size[0] < width or size[1] < height:
            raise ValueError(
                f"the picture is {width} pixels wide and {height} high, more than the size {size[0]} x {size[1]}: "
                "give a larger one"
            )
        left, top = (size[0] - width) // 2, (size[1] - height) // 2
        sides = left, top, size[0] - width - left, size[1] - height - top
    if not all(is_whole_number(side, 0) for side in sides):
        raise ValueError(f"sides are whole numbers of pixels from 0, left, top, right and bottom, got {tuple(sides)}")
    return sides


def extend(picture: np.ndarray, sides: Sequence[int]) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Return a picture (H, W, ...) with its edges repeated, where they are (bool), and row and column of its first
    pixel."""
    left, top, right, bottom = sides
    around = ((top, bottom), (left, right))
    extended = np.pad(picture, (*around, *(((0, 0),) * (picture.ndim - 2))), mode="edge")
    mask = np.pad(np.zeros(picture.shape[:2], dtype=bool), around, constant_values=True)
    return extended, mask, (top, left)


@torch.no_grad()
def variations(
    model: Pipeline,
    images: data.Images,
    keep: float,
    label: Label | Sequence[Label],
    samples: int,
    seed: int | Iterable[int],
    sampling: Sampling,
    batch_size: int,
) -> list[Image.Image]:
    """See `Pipeline.variations`."""
    check_keep(keep)
    pictures, grid = arrays(images), model.generator.grid
    check_counts(samples=samples, batch_size=batch_size)
    labels = _labels(model, label, len(pictures), samples)
    seeds = rng.of_images(seed, len(pictures) * samples)
    everywhere = [np.ones(picture.shape[:2], dtype=bool) for picture in pictures]
    views = [Framing("whole").view(mask, grid, model.tokenizer.stride) for mask in everywhere]
    all_tokens = np.ones(grid, dtype=bool)
    tasks = [Task(*one, all_tokens, hide=False) for one in zip(pictures, everywhere, views, strict=True)]
    stay, finished = round(keep * model.generator.num_tokens), []
    for part in torch.arange(len(seeds)).split(batch_size):
        chosen = [tasks[number] for number in (part // samples).tolist()]
        places = orders.random(grid, rng.derive(seeds[part], 6))[:, :stay]
        known = torch.zeros(len(part), model.generator.num_tokens, dtype=torch.bool).scatter(1, places, True)
        tokens = _encode(model, chosen).flatten(1)
        known = known.to(tokens.device)
        made = canvas.complete(model.packed(), tokens, known, labels[part], seeds[part], sampling)
        finished += [task.finished(image) for task, image in zip(chosen, model.decode(made), strict=True)]
    return finished


@dataclass(frozen=True)
class Frame:
    """A moment of painting. picture: so far, grey where nothing is. made_at: int (rows, columns), for each token the
    step that made it, from 1; 0 if it was known from the beginning, -1 if it is still to come.
    """

    picture: Image.Image
    made_at: np.ndarray


def watch(
    model: Pipeline,
    image: data.Array | data.Picture | None,
    mask: masks.Mask | None,
    label: Label,
    seed: int,
    sampling: Sampling,
    framing: Framing,
    guess: int = 0,
    sides: Sequence[int] = (0, 0, 0, 0),
    control: data.Array | data.Picture | None = None,
    control_type: str | None = None,
) -> Iterator[Frame]:
    """See `Pipeline.watch`. sides: as of `outpaint`, instead of a mask."""
    check_guess(model, guess)
    if image is None:
        if mask is not None:
            raise ValueError("a mask says where to paint in a picture: give the picture too, or leave the mask out")
        h, w = model.image_size
        picture = np.full((h, w) if model.tokenizer.channels == 1 else (h, w, 3), round(GREY * 255), dtype=np.uint8)
        hidden, corner = np.ones((h, w), dtype=bool), (0, 0)
    elif mask is None:
        picture, hidden, corner = extend(arrays([image])[0], sides)
    else:
        picture = arrays([image])[0]
        hidden, corner = masks.as_mask(mask, (picture.shape[0], picture.shape[1])), (0, 0)
    tasks = [_task(model, picture, hidden, framing, corner)]
    (task,) = steered(model, [picture], tasks, None if control is None else [control], control_type)
    if task is None:
        return iter([Frame(Image.fromarray(picture), np.zeros(model.generator.grid, dtype=int))])
    canvases = _paint(model, [task], _labels(model, label, 1, 1), rng.of_images(seed, 1), sampling, framing, guess)
    return _frames(model, task, canvases)


@torch.no_grad()
def _frames(model: Pipeline, task: Task, canvases: Iterator[Tensor]) -> Iterator[Frame]:
    stride, grid = model.tokenizer.stride, model.generator.grid
    grey = torch.full((1, model.tokenizer.channels, *model.image_size), GREY, device=model.generator.device)
    blank = model.tokenizer.encode(grey).flatten()[0]
    made_at = np.full(task.view.grid, -1)
    for step, tokens in enumerate(canvases):
        missing = tokens == UNKNOWN
        made_at[(made_at < 0) & ~missing[0].cpu().numpy()] = step
        pixels = canvas.decode(model.decode, torch.where(missing, blank, tokens), grid, stride)[0].float()
        hidden = missing[0].repeat_interleave(stride, 0).repeat_interleave(stride, 1)
        yield Frame(task.finished(torch.where(hidden, GREY, pixels)), made_at.copy())


def guided(sampling: Sampling) -> Sampling:
    """How `edit` samples: with guidance, of EDIT_GUIDANCE where the model is used without."""
    return replace(sampling, guidance=Guidance(EDIT_GUIDANCE)) if sampling.guidance.off else sampling


# what they share -----------------------------------------------------------------------------------------------------


def check_counts(**counts: int) -> None:
    for name, count in counts.items():
        check_whole_number(name, count, 1)


def arrays(images: data.Images) -> list[np.ndarray]:
    """Return each picture, upright and of 8 bits: (H, W) or (H, W, 3)."""
    arrays = [np.asarray(picture) for picture in data.pictures(images)]
    if any(0 in array.shape for array in arrays):
        raise ValueError("a picture without pixels cannot be painted in: leave it out")
    return arrays


@torch.no_grad()
def guess_label(
    model: Pipeline,
    picture: np.ndarray,
    mask: np.ndarray,
    framing: Framing,
    count: int,
    corner: tuple[int, int] = (0, 0),
) -> int:
    """Return the class index that painting finds in `count` orders; the null class where nothing is painted, or
    known."""
    check_guess(model, count)
    task = _task(model, picture, mask, framing, corner)
    if task is None:
        return model.generator.num_classes
    return int(_guess(model, _encode(model, [task]), ~task.anew, framing, count)[0])


def check_guess(model: Pipeline, guess: int) -> None:
    """Raise a ValueError for what is no number of orders, or where there are no classes to guess from."""
    if not is_whole_number(guess, 0):
        raise ValueError(f"guess must be a whole number of orders, 0 for none, got {guess!r}")
    if guess and not model.classes.count:
        raise ValueError("this model has no classes to guess from: leave guess out")


def check_keep(keep: float) -> None:
    if isinstance(keep, bool) or not isinstance(keep, Real) or not 0 <= keep <= 1:
        raise ValueError(f"keep must be a share of the tokens, from 0 to 1, got {keep!r}")


def _task(
    model: Pipeline, picture: np.ndarray, mask: np.ndarray, framing: Framing, corner: tuple[int, int] = (0, 0)
) -> Task | None:
    """None where nothing is to be painted."""
    if not mask.any():
        return None
    view = framing.view(mask, model.generator.grid, model.tokenizer.stride, corner)
    return Task(
        picture, mask, view, masks.token_mask(view.of(mask), view.grid, framing.cover, framing.grow), framing.feather
    )


def steered(
    model: Pipeline,
    pictures: Sequence[np.ndarray],
    tasks: Sequence[Task | None],
    control: data.Images | None,
    control_type: str | None,
) -> list[Task | None]:
    """Return the tasks, each with the condition of one control picture as large as its own; as they are without
    control."""
    if control is None:
        return list(tasks)
    steering = arrays(control)
    kind = check_control(model, pictures, steering, control_type)
    how = kind, model.tokenizer.stride, model.channels_for(kind)
    return [task and task.steered(one, *how) for task, one in zip(tasks, steering, strict=True)]


def check_control(
    model: Pipeline, pictures: Sequence[np.ndarray], control: Sequence[np.ndarray], control_type: str | None
) -> str:
    """Return the kind of condition that control pictures become; a ValueError where they cannot, or are of other
    sizes."""
    kind = model.condition_kind(control_type)
    ours, theirs = ([(one.shape[1], one.shape[0]) for one in many] for many in (control, pictures))
    if ours != theirs:
        raise ValueError(
            f"control {_sizes(ours)} for {_sizes(theirs)} (width x height): give one as large as each result"
        )
    return kind


def _sizes(sizes: Sequence[tuple[int, int]]) -> str:
    return f"pictures of {', '.join(f'{width} x {height}' for width, height in sizes)} pixels"


def _labels(model: Pipeline, label: Label | Sequence[Label], pictures: int, samples: int) -> Tensor:
    """Return one class index for each result."""
    several = not isinstance(label, str) and (isinstance(label, Sequence) or getattr(label, "ndim", 0) == 1)
    labels = model.label_indices(label if several else [label] * pictures)  # type: ignore[arg-type, list-item]
    if len(labels) != pictures:
        raise ValueError(f"{len(labels)} labels for {pictures} pictures: give one for each, or one for all")
    return labels.repeat_interleave(samples)


def _encode(model: Pipeline, tasks: Sequence[Task]) -> Tensor:
    """Tokens of the canvas of each task, all of one grid: (n, rows, columns). One that comes again is encoded once."""
    tokenizer, distinct = model.tokenizer, list(dict.fromkeys(map(id, tasks)))
    by_id = {id(task): task for task in tasks}
    pixels = torch.cat([by_id[key].pixels(tokenizer.stride, tokenizer.channels) for key in distinct])
    tokens = canvas.encode(tokenizer, pixels.to(model.generator.device), model.generator.grid)
    return tokens[[distinct.index(id(task)) for task in tasks]]


def _paint(
    model: Pipeline,
    tasks: Sequence[Task],
    labels: Tensor,
    seeds: Tensor,
    sampling: Sampling,
    framing: Framing,
    guess: int,
) -> Iterator[Tensor]:
    """Canvases of tasks that leave the same tokens, step by step."""
    generator, tokens = model.packed(), _encode(model, tasks)
    known, step = ~tasks[0].anew, framing.step(generator.grid)
    if guess:
        found = _guess(model, tokens, known, framing, guess)
        labels = torch.where(labels == generator.num_classes, found, labels)
    steering = [task.condition for task in tasks if task.condition is not None]
    control = torch.cat(steering).to(generator.device) if steering else None
    return canvas.paint(generator, tokens, torch.from_numpy(known), labels, seeds, sampling, step, control)


def _guess(model: Pipeline, tokens: Tensor, known: np.ndarray, framing: Framing, count: int) -> Tensor:
    """Return the class of each canvas (n, rows, columns) by what is known in the first window that is painted: (n,)."""
    generator = model.packed()
    windows = canvas.windows(known, generator.grid, framing.step(generator.grid))
    window = (*windows, (slice(None), slice(None)))[0]
    seen = tokens[:, window[0], window[1]].flatten(1), torch.from_numpy(known[window].flatten())
    return guess_class(generator, *seen, count)


@torch.no_grad()
def _paint_all(
    model: Pipeline,
    pictures: Sequence[np.ndarray],
    tasks: Sequence[Task | None],
    label: Label | Sequence[Label],
    samples: int,
    seed: int | Iterable[int],
    sampling: Sampling,
    framing: Framing,
    guess: int,
    batch_size: int,
) -> list[Image.Image]:
    """`samples` of each picture in turn; those that leave the same tokens are painted together."""
    check_counts(samples=samples, batch_size=batch_size)
    check_guess(model, guess)
    labels, seeds = _labels(model, label, len(tasks), samples), rng.of_images(seed, len(tasks) * samples)
    finished = [Image.fromarray(picture) for picture in pictures for _ in range(samples)]
    alike: dict[tuple[orders.Grid, bytes], list[int]] = {}
    for number in range(len(finished)):
        if (task := tasks[number // samples]) is not None:
            alike.setdefault((task.view.grid, task.anew.tobytes()), []).append(number)
    for numbers in alike.values():
        for part in torch.tensor(numbers).split(batch_size):
            chosen = [task for number in part.tolist() if (task := tasks[number // samples]) is not None]
            for tokens in _paint(model, chosen, labels[part], seeds[part], sampling, framing, guess):
                last = tokens
            images = canvas.decode(model.decode, last, model.generator.grid, model.tokenizer.stride)
            for number, task, image in zip(part.tolist(), chosen, images, strict=True):
                finished[number] = task.finished(image)
    return finished
