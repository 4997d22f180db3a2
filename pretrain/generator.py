"""Training of a generator on tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from randfeat.models import Generator

from .agreement import AgreementObjective, projecting
from .config import AgreementConfig, RuntimeConfig, TrainingConfig
from .data import Batches, Share, Tokens
from .objective import Objective
from .parallel import all_reduce, configured_blocks
from .trainer import History, Step, Task, train_task

VALIDATION_ORDERS = 4  # orders in which validation reads each image
VALIDATION_BATCH = 128  # images, where `micro_batch` says nothing else
OTHER_ORDERS_ON = 1000  # held-out images, at most, on which order modes are measured that are not trained


@dataclass(frozen=True)
class Validation:
    """Argument of `on_validation`, called while the model has the validated weights and is in evaluation mode.

    loss: nats per token. by_place: (N,), nats at each place in the order. measure: returns by_place for an order mode,
    for one that is not trained over up to `OTHER_ORDERS_ON` held-out images, which are taken at equal distances, as
    files are often sorted by class; every process has to call it.
    """

    step: int
    loss: float
    by_place: Tensor
    model: Generator
    measure: Callable[[str], Tensor]


@torch.no_grad()
def losses_by_place(
    objective: nn.Module,
    model: Generator,
    tokens: Tokens,
    labels: Tensor | None,
    order: str | None = None,
    share: Share | None = None,
    paired: Tokens | None = None,
) -> Tensor:
    """Return the loss at each place in the order, in nats, as in training but with all labels: (N,).

    An image has the same orders in each call. objective: `Objective(model)`, perhaps wrapped. order: a mode of the
    model.
    """
    share = share or Share(VALIDATION_BATCH)
    source = Batches(tokens, labels, model, TrainingConfig(order=order, label_dropout=0.0, seed=-1), share, paired)
    nats = torch.zeros(tokens.shape[-1], dtype=torch.float64)
    with model.evaluating():
        for epoch in range(VALIDATION_ORDERS):
            for piece, weight, rows in share.of(torch.arange(len(tokens))):
                batch = source.show(epoch, rows, piece, weight).to(model.device)
                losses = objective(*batch.shown)[1]
                nats += weight * losses.sum(0).cpu().double()
    return all_reduce(nats) / (VALIDATION_ORDERS * len(tokens))


def validate(model: Generator, tokens: Tokens, labels: Tensor | None, config: TrainingConfig) -> float:
    """Return the loss in nats per token, as in training but with all labels."""
    return losses_by_place(Objective(model), model, tokens, labels, config.order).mean().item()


def train(
    model: Generator,
    tokens: Tokens,
    labels: Tensor | None,
    validation: tuple[Tokens, Tensor | None] | None,
    config: TrainingConfig,
    runtime: RuntimeConfig | None = None,
    *,
    objective: Callable[[Generator, bool], nn.Module] = Objective,
    directory: Path | None = None,
    settings: dict[str, Any] | None = None,
    paired: tuple[Tokens, Tokens | None] | None = None,
    agreement: AgreementConfig | None = None,
    on_step: Callable[[Step], None] | None = None,
    on_validation: Callable[[Validation], None] | None = None,
) -> History:
    """Train a model in place and leave it in evaluation mode, with the weights of the best validation.

    tokens: (n, N) in raster space, or (n, crops, N). labels: (n,) class indices, or None to train without labels.
    validation: tokens and labels of held-out images, or None to keep the last step's weights.
    objective: makes the module whose forward is minimized (see `Objective`), of the model and of whether matrix
        products are in bfloat16. paired: further tokens for its forward, of training and of held-out images, see
        `Batches`.
    agreement: of two crops of an image, which have to be (n, crops, N) then; it replaces `objective` and `paired`.
    directory: of the checkpoints. Training goes on from the newest of them if it has the same `config` and `settings`
        (JSON, the origin of model and data); all processes must see the same files. TERM, INT and USR1 are then handled
        between two steps: the run is saved and `Stopped` raised.
    on_step, on_validation: called in every process.

    Raises an OSError where the disk is full; checkpoints saved before are intact.
    """
    task = GeneratorTask(model, tokens, labels, validation, config, objective, paired, agreement)
    return train_task(
        task, runtime, directory=directory, settings=settings, on_step=on_step, on_validation=on_validation
    )


class GeneratorTask(Task):
    """A generator, the tokens that it learns and the held-out ones; arguments as of `train`."""

    model: Generator
    config: TrainingConfig

    def __init__(
        self,
        model: Generator,
        tokens: Tokens,
        labels: Tensor | None,
        validation: tuple[Tokens, Tensor | None] | None,
        config: TrainingConfig,
        objective: Callable[[Generator, bool], nn.Module] = Objective,
        paired: tuple[Tokens, Tokens | None] | None = None,
        agreement: AgreementConfig | None = None,
    ) -> None:
        self.model, self.tokens, self.labels, self.validation = model, tokens, labels, validation
        self.config, self.make_objective = config, objective
        self.paired = paired and paired[0]
        self.validation_paired = paired and paired[1]
        self.units = model.num_tokens
        self.agreement = agreement if agreement is not None and agreement.weight else None
        if self.agreement is not None:
            self.make_objective = partial(AgreementObjective, config=self.agreement)

    @property
    def validates(self) -> bool:
        return self.validation is not None

    def settings(self) -> dict[str, Any]:
        own = {} if self.agreement is None else {"agreement": vars(self.agreement)}
        return {"model": self.model.config, "training": vars(self.config), **own}

    @contextmanager
    def context(self, runtime: RuntimeConfig) -> Iterator[None]:
        with ExitStack() as stack:
            if self.agreement is not None:
                stack.enter_context(projecting(self.model, self.agreement, self.config.seed))
            stack.enter_context(configured_blocks(self.model, runtime))
            yield

    def objective(self, in_bfloat16: bool) -> nn.Module:
        return self.make_objective(self.model, in_bfloat16)

    def steps(self, share: Share) -> Batches:
        return Batches(
            self.tokens, self.labels, self.model, self.config, share, self.paired, self.agreement is not None
        )

    def measure(self, objective: nn.Module, share: Share, step: int) -> tuple[float, Validation]:
        share = replace(share, size=share.size or VALIDATION_BATCH)
        assert self.validation is not None
        tokens, labels, paired = *self.validation, self.validation_paired
        found = losses_by_place(objective, self.model, tokens, labels, self.config.order, share, paired)
        few = slice(None, None, max(1, -(-len(tokens) // OTHER_ORDERS_ON)))
        some = tokens[few], None if labels is None else labels[few], None if paired is None else paired[few]

        def by_place(order: str) -> Tensor:
            if order == self.model.check_order_mode(self.config.order):
                return found
            return losses_by_place(objective, self.model, *some[:2], order, share, some[2])

        return found.mean().item(), Validation(step, found.mean().item(), found, self.model, by_place)
