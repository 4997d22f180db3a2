"""Painting in pictures of any size: `Pipeline.inpaint` and its siblings make a request, which is painted or watched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from numbers import Real

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..data.images import Images
from ..data.labels import Label
from ..inference.bias import checked_cells
from ..inference.editing import canvas
from ..inference.editing.framing import Framing
from ..inference.editing.pictures import EditTask, MaskedPicture, as_arrays
from ..inference.likelihood import guess_class
from ..inference.sampling import UNKNOWN, Sampling
from ..inference.schedules import Guidance
from ..models import orders
from ..utils import rng
from ..utils.checks import check_whole_number, is_whole_number
from .base import BATCH, BasePipeline

GREY = 0.5  # value of pixels that are not decoded yet
EDIT_GUIDANCE = 2.0


@dataclass(frozen=True)
class EditRequest:
    """Request to paint in pictures: everything but the model.

    pictures: with their masks. label: one for all pictures or one for each; None for the null class. samples: results
    for each picture. seed: result i has the seed `seed + i`, or the i-th of a list. guess: number of orders in which to
    guess the class from the known tokens where no label is given, 0 for none. batch_size: results at a time. control:
    pictures as large as each result, for a model with control; control_type: see `BasePipeline.conditions`. bias: of
    tokens, see `inference.bias.checked_cells`.
    """

    pictures: Sequence[MaskedPicture]
    sampling: Sampling
    framing: Framing
    label: Label | Sequence[Label] = None
    samples: int = 1
    seed: int | Iterable[int] = 0
    guess: int = 0
    batch_size: int = BATCH
    control: Images | None = None
    control_type: str | None = None
    bias: Tensor | None = None

    def __post_init__(self) -> None:
        check_counts(samples=self.samples, batch_size=self.batch_size)


@dataclass(frozen=True)
class Frame:
    """A moment of painting. picture: so far, grey where nothing is made yet. made_at: int (rows, columns), for each
    token the step that made it, from 1; 0 if it was known from the beginning, -1 if it is still to come.
    """

    picture: Image.Image
    made_at: np.ndarray


@torch.no_grad()
def paint(model: BasePipeline, request: EditRequest) -> list[Image.Image]:
    """Return the results for each picture in turn, `request.samples` each.

    Those that make the same tokens anew are painted together.
    """
    tasks, samples = tasks_of(model, request), request.samples
    labels, seeds = _labels(model, request), rng.of_images(request.seed, len(tasks) * samples)
    finished = [Image.fromarray(one.picture) for one in request.pictures for _ in range(samples)]
    alike: dict[tuple[orders.Grid, bytes], list[int]] = {}
    for number in range(len(finished)):
        if (task := tasks[number // samples]) is not None:
            alike.setdefault((task.view.grid, task.anew.tobytes()), []).append(number)
    for numbers in alike.values():
        for part in torch.tensor(numbers).split(request.batch_size):
            chosen = [task for number in part.tolist() if (task := tasks[number // samples]) is not None]
            for tokens in _canvases(model, request, chosen, labels[part], seeds[part]):
                last = tokens
            images = canvas.decode(model.decode, last, model.generator.grid, model.tokenizer.stride)
            for number, task, image in zip(part.tolist(), chosen, images, strict=True):
                finished[number] = task.finished(image)
    return finished


@torch.no_grad()
def vary(model: BasePipeline, request: EditRequest, keep: float) -> list[Image.Image]:
    """Return variations of pictures: the share `keep` of their tokens stays, at places that each seed draws.

    The pictures of the request are masked everywhere, its framing is "whole".
    """
    check_keep(keep)
    generator, grid = model.generator, model.generator.grid
    tasks = tasks_of(model, request)
    seen = [replace(task, anew=np.ones(grid, dtype=bool), hide=False) for task in tasks if task is not None]
    labels, seeds = _labels(model, request), rng.of_images(request.seed, len(seen) * request.samples)
    stay, finished = round(keep * generator.num_tokens), []
    for part in torch.arange(len(seeds)).split(request.batch_size):
        chosen = [seen[number] for number in (part // request.samples).tolist()]
        places = orders.random(grid, rng.derive(seeds[part], 6))[:, :stay]
        known = torch.zeros(len(part), generator.num_tokens, dtype=torch.bool).scatter(1, places, True)
        tokens = _encode(model, chosen).flatten(1)
        images = [task.condition for task in chosen if task.condition is not None]
        condition = model.condition_tokens(torch.cat(images)) if images else None
        how = known.to(tokens.device), labels[part], seeds[part], request.sampling, condition
        bias = _bias(model, request, chosen)
        favoured = None if bias is None else bias.flatten(-3, -2)
        made = canvas.complete(model.inference_generator(), tokens, *how, favoured)
        finished += [task.finished(image) for task, image in zip(chosen, model.decode(made), strict=True)]
    return finished


def watch(model: BasePipeline, request: EditRequest) -> Iterator[Frame]:
    """Return the moments of the first result: before the first step and after each. The last one is the result."""
    request = replace(request, samples=1)
    (task,) = tasks_of(model, request)
    if task is None:
        picture = Image.fromarray(request.pictures[0].picture)
        return iter([Frame(picture, np.zeros(model.generator.grid, dtype=int))])
    seeds = rng.of_images(request.seed, 1)
    return _frames(model, task, _canvases(model, request, [task], _labels(model, request), seeds))


def grey_picture(model: BasePipeline) -> MaskedPicture:
    """Return a grey picture of the model's size, masked everywhere: painting it is sampling."""
    h, w = model.image_size
    shape = (h, w) if model.tokenizer.channels == 1 else (h, w, 3)
    return MaskedPicture(np.full(shape, round(GREY * 255), dtype=np.uint8), np.ones((h, w), dtype=bool))


def guided(sampling: Sampling) -> Sampling:
    """Return the sampling of an edit: with guidance, of EDIT_GUIDANCE where there is none."""
    return replace(sampling, guidance=Guidance(EDIT_GUIDANCE)) if sampling.guidance.off else sampling


@torch.no_grad()
def guess_label(model: BasePipeline, picture: MaskedPicture, framing: Framing, count: int) -> int:
    """Return the class index that painting guesses in `count` orders.

    It is the null class where nothing is painted, or nothing known. Raises a ValueError for a model without classes.
    """
    _check_guess(model, count)
    task = _task(model, picture, framing)
    if task is None:
        return model.generator.num_classes
    return int(_guess(model, _encode(model, [task]), ~task.anew, framing, count)[0])


# checks --------------------------------------------------------------------------------------------------------------


def check_counts(**counts: int) -> None:
    """Raise a ValueError that names the first of these that is no whole number from 1."""
    for name, count in counts.items():
        check_whole_number(name, count, 1)


def check_keep(keep: float) -> None:
    """Raise a ValueError for a share of the tokens that is not in [0, 1]."""
    if isinstance(keep, bool) or not isinstance(keep, Real) or not 0 <= keep <= 1:
        raise ValueError(f"keep must be a share of the tokens, from 0 to 1, got {keep!r}")


def check_control(
    model: BasePipeline, pictures: Sequence[np.ndarray], control: Sequence[np.ndarray], control_type: str | None
) -> str:
    """Return the kind of condition that control pictures become.

    Raises a ValueError where the model has no such control, or they are of other sizes than the pictures.
    """
    kind = model.condition_kind(control_type)
    ours, theirs = ([(one.shape[1], one.shape[0]) for one in many] for many in (control, pictures))
    if ours != theirs:
        raise ValueError(
            f"control {_sizes(ours)} for {_sizes(theirs)} (width x height): give one as large as each result"
        )
    return kind


def _check_guess(model: BasePipeline, guess: int) -> None:
    """Raise a ValueError for what is no number of orders, or where there are no classes to guess from."""
    if not is_whole_number(guess, 0):
        raise ValueError(f"guess must be a whole number of orders, 0 for none, got {guess!r}")
    if guess and not model.classes.count:
        raise ValueError("this model has no classes to guess from: leave guess out")


def _sizes(sizes: Sequence[tuple[int, int]]) -> str:
    return f"pictures of {', '.join(f'{width} x {height}' for width, height in sizes)} pixels"


# parts of all jobs ---------------------------------------------------------------------------------------------------


def tasks_of(model: BasePipeline, request: EditRequest) -> list[EditTask | None]:
    """Return the task of each picture, with its condition where there is control; None where nothing is masked."""
    _check_guess(model, request.guess)
    if request.bias is not None:
        checked_cells(request.bias, model.generator.vocab_size)
    tasks = [_task(model, one, request.framing) for one in request.pictures]
    if request.control is None:
        return tasks
    control = as_arrays(request.control)
    kind = check_control(model, [one.picture for one in request.pictures], control, request.control_type)
    how = kind, model.tokenizer.stride, model.channels_for(kind)
    return [task and task.with_condition(one, *how) for task, one in zip(tasks, control, strict=True)]


def _task(model: BasePipeline, picture: MaskedPicture, framing: Framing) -> EditTask | None:
    model.check_reads_pictures("painting")
    return picture.task(model.generator.grid, model.tokenizer.stride, framing)


def _labels(model: BasePipeline, request: EditRequest) -> Tensor:
    """Return the class index of each result: int64 (pictures * samples,)."""
    label, pictures = request.label, len(request.pictures)
    several = not isinstance(label, str) and (isinstance(label, Sequence) or getattr(label, "ndim", 0) == 1)
    labels = model.label_indices(label if several else [label] * pictures)  # type: ignore[arg-type, list-item]
    if len(labels) != pictures:
        raise ValueError(f"{len(labels)} labels for {pictures} pictures: give one for each, or one for all")
    return labels.repeat_interleave(request.samples)


def _encode(model: BasePipeline, tasks: Sequence[EditTask]) -> Tensor:
    """Return the tokens of the canvas of each task, all of one grid: (n, rows, columns).

    A task that occurs several times is encoded once.
    """
    tokenizer, distinct = model.tokenizer, list(dict.fromkeys(map(id, tasks)))
    by_id = {id(task): task for task in tasks}
    pixels = torch.cat([by_id[key].pixels(tokenizer.stride, tokenizer.channels) for key in distinct])
    tokens = canvas.encode(tokenizer, pixels.to(model.generator.device), model.generator.grid)
    return tokens[[distinct.index(id(task)) for task in tasks]]


def _canvases(
    model: BasePipeline, request: EditRequest, tasks: Sequence[EditTask], labels: Tensor, seeds: Tensor
) -> Iterator[Tensor]:
    """Yield the canvases of tasks that make the same tokens anew, (n, rows, columns), step by step."""
    generator, tokens = model.inference_generator(), _encode(model, tasks)
    known, step = ~tasks[0].anew, request.framing.step(generator.grid)
    if request.guess:
        found = _guess(model, tokens, known, request.framing, request.guess)
        labels = torch.where(labels == generator.num_classes, found, labels)
    images = [task.condition for task in tasks if task.condition is not None]
    control = torch.cat(images).to(generator.device) if images else None
    how = labels, seeds, request.sampling, step, control, _bias(model, request, tasks)
    return canvas.paint(generator, tokens, torch.from_numpy(known), *how)


def _bias(model: BasePipeline, request: EditRequest, tasks: Sequence[EditTask]) -> Tensor | None:
    """Return the bias of the tokens of canvases of one grid, (rows, columns, V) where it is that of all of them, else
    (n, rows, columns, V).
    """
    if request.bias is None:
        return None
    cells = checked_cells(request.bias, model.generator.vocab_size)
    places = [(task.view, (task.mask.shape[0], task.mask.shape[1])) for task in tasks]
    distinct = list(dict.fromkeys(places))
    biases = torch.stack([view.bias(cells, size) for view, size in distinct])
    return biases[0] if len(distinct) == 1 else biases[[distinct.index(place) for place in places]]


def _guess(model: BasePipeline, tokens: Tensor, known: np.ndarray, framing: Framing, count: int) -> Tensor:
    """Return the class of each canvas (n, rows, columns) by the known tokens of the first window painted: (n,)."""
    generator = model.inference_generator()
    windows = canvas.windows(known, generator.grid, framing.step(generator.grid))
    window = (*windows, (slice(None), slice(None)))[0]
    seen = tokens[:, window[0], window[1]].flatten(1), torch.from_numpy(known[window].flatten())
    return guess_class(generator, *seen, count)


@torch.no_grad()
def _frames(model: BasePipeline, task: EditTask, canvases: Iterator[Tensor]) -> Iterator[Frame]:
    """Yield a frame for each canvas (1, rows, columns)."""
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
