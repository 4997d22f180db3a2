"""Models to start from: the classes of other images in their class table, and their weights in a new generator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from randfeat import models
from randfeat.data.labels import Classes
from randfeat.models import Generator
from randfeat.pipeline.pipeline import Pipeline
from randfeat.utils.resume import difference

Start: TypeAlias = "Generator | Pipeline"  # a generator alone has no names of its classes


@dataclass(frozen=True)
class ClassTable:
    """Class table of a model, and the rows of it that other classes take.

    known: classes of the model, whose null class is row `known`. rows: for each of the other classes the model's class
    whose row it takes, None for one that the model does not know, which begins as the null class.
    """

    known: int
    rows: tuple[int | None, ...]

    @property
    def kept(self) -> bool:
        """True where the classes are the model's own."""
        return self.rows == tuple(range(self.known))

    @property
    def new(self) -> int:
        """Number of classes that the model does not know."""
        return self.rows.count(None)

    def __str__(self) -> str:
        """Return what becomes of the table where the classes are others, as a sentence without a stop."""
        count, known = len(self.rows), f"the model knows {self.known or 'no'} class{'es' * (self.known != 1)}"
        if not count:
            return f"{known}, and this training is without labels: the null class and the other weights are kept"
        if self.new == count:
            return f"{known}, these images {count}: a new class table, the other weights kept"
        if self.new:
            by_name = f"{count - self.new} of them by name"
            return f"{known}, these images {count}, {by_name}: new rows in the class table, the other weights kept"
        order = "in another order" if count == self.known else "of the same names"
        return f"{known}, these images {count} {order}: each keeps its row of the class table, by name"

    def of(self, weight: Tensor, first: int) -> Tensor:
        """Return the parameter that embeds the other classes, of the model's, whose class 0 is row `first`."""
        null = first + self.known
        of_classes = [null if row is None else first + row for row in self.rows]
        return weight[torch.tensor([*range(first), *of_classes, *range(null, len(weight))])]


def generator_of(start: Start) -> Generator:
    """Return the generator of a model to start from."""
    return start.generator if isinstance(start, Pipeline) else start


def class_table(start: Start, names: Sequence[str] | None, count: int) -> ClassTable:
    """Return the rows of a model's class table that other classes take.

    Classes are the same where their names are, compared without case; of ImageNet also by synonym and WordNet id. Where
    one side has no names, as many classes are taken to be the same ones.

    names: of the classes, where they have some. count: of the classes, 0 for a training without labels.
    """
    classes = start.classes if isinstance(start, Pipeline) else Classes((), start.num_classes)
    known = classes.count
    unnamed = not isinstance(classes.given, str) and classes.given == [str(i) for i in range(known)]
    rows: list[int | None] = [None] * count if names is None or not count else [classes.find(name) for name in names]
    if count == known and rows == [None] * count and (names is None or unnamed):
        return ClassTable(known, tuple(range(known)))
    return ClassTable(known, tuple(rows))


def check_start(made: Generator, start: Start) -> None:
    """Raise a ValueError unless a model to start from is of the size and for the tokens of a generator.

    Its classes may be others, and its control may be missing.
    """
    init = generator_of(start)
    if init.vocab_size != made.vocab_size:
        raise ValueError(
            f"the model to start from reads tokens of {init.vocab_size:,} codes, and these are of "
            f"{made.vocab_size:,}: take its own tokenizer, or one that was trained from that"
        )
    if init.grid != made.grid:
        (own_rows, own_columns), (rows, columns) = init.grid, made.grid
        raise ValueError(
            f"the model to start from reads {own_rows} x {own_columns} tokens, and these images have {rows} x "
            f"{columns}: make tokens of images of its size"
        )
    theirs, wanted = ({"model": models.name_of(one), **one.config, "dropout": None} for one in (init, made))
    theirs["num_classes"] = wanted["num_classes"]
    if init.control is None and made.control is not None:
        theirs["control"] = made.control.config
    if other := difference(theirs, wanted):
        raise ValueError(
            f"the model to start from has {other}, as recipe and tokens require: choose another or change the recipe"
        )


def fill(made: Generator, start: Start, table: ClassTable) -> None:
    """Give a fresh generator the weights of a model to start from; control that this one lacks stays fresh."""
    init = generator_of(start)
    state, (name, first) = init.state_dict(), init.label_rows
    state[name] = table.of(state[name], first)
    if init.control is None and made.control is not None:
        state |= {f"control.{name}": value for name, value in made.control.state_dict().items()}
    made.load_state_dict(state)
