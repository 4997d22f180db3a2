"""The training loop: tokens in memory, one process, early stopping on held-out tokens.

What a step sees is a pure function of (seed, epoch, sample): the shuffle, each image's token order and the dropped
labels are computed, never drawn from a generator that has a state; dropout runs under an RNG seeded for its step and
put back after.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from randfeat import orders, seeding
from randfeat.models import Generator


@dataclass(frozen=True)
class Training:
    """How to train.

    steps: optimiser steps. batch_size: images a step.
    order: `random`, a fresh order per image and epoch, or another mode of `orders.MODES` for every image; by default
        the model's own first, which is random where it can.
    label_dropout: share of the times an image is seen that replace its label by the null class, for guidance.
    other_crops: share of the times that show one of its other crops instead of the first. It falls from epoch to epoch
        in proportion to the images still to be seen, so that the end of a long training shows first crops alone.
    warmup: steps of linear warm-up; a cosine decay to `final_lr_ratio` of the rate follows.
    clip: largest global gradient norm.
    ema: decay of the averaged weights that are validated and kept; 0 keeps the weights themselves.
    eval_every: steps between validations. patience: validations without a new best before training stops (0: never).
    """

    steps: int = 1000
    batch_size: int = 128
    order: str | None = None
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    warmup: int = 100
    final_lr_ratio: float = 0.05
    clip: float = 1.0
    ema: float = 0.0
    label_dropout: float = 0.1
    other_crops: float = 0.0
    eval_every: int = 100
    patience: int = 0
    seed: int = 0


@dataclass
class History:
    """What was measured: lists of (step, nats per token); the weights kept are those of `kept_step`."""

    train: list[tuple[int, float]] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)
    kept_step: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Batch:
    tokens: Tensor  # (B, N) raster space
    labels: Tensor  # (B,) after label dropout
    order: Tensor  # (B, N)


def batches(tokens: Tensor, labels: Tensor | None, model: Generator, config: Training) -> Iterator[Batch]:
    """The batches of all steps, epoch after epoch; an epoch's last, smaller batch is kept."""
    count, step, epoch = len(tokens), 0, 0
    while step < config.steps:
        shuffled = seeding.bits(seeding.derive(config.seed, epoch, 0), count).argsort(stable=True)
        for rows in shuffled.split(config.batch_size):
            if step == config.steps:
                return
            yield make_batch(tokens, labels, model, config, epoch, rows)
            step += 1
        epoch += 1


def make_batch(
    tokens: Tensor, labels: Tensor | None, model: Generator, config: Training, epoch: int, rows: Tensor
) -> Batch:
    """The given rows as epoch `epoch` shows them."""
    order = orders.make(model.check_order_mode(config.order), model.grid, seeding.derive(config.seed, epoch, 1, rows))
    label = torch.full_like(rows, model.num_classes)
    if labels is not None:
        kept = seeding.uniform(seeding.derive(config.seed, epoch, 2, rows), 1)[:, 0] >= config.label_dropout
        label = torch.where(kept, labels[rows], label)
    crops = tokens.unsqueeze(1) if tokens.ndim == 2 else tokens
    count = crops.shape[1]
    other, which = seeding.uniform(seeding.derive(config.seed, epoch, 4, rows), 2).unbind(-1)
    left = 1 - epoch * len(crops) / (config.steps * config.batch_size)
    crop = (other < config.other_crops * left) * (1 + (which * (count - 1)).long()) % count
    return Batch(*(x.to(model.device) for x in (crops[rows, crop], label, order)))


def loss(model: Generator, batch: Batch) -> Tensor:
    """Mean negative log-likelihood in nats per token."""
    logits = model(batch.tokens, batch.labels, batch.order)
    return F.cross_entropy(logits.flatten(0, 1).float(), orders.gather(batch.tokens, batch.order).flatten())


@torch.no_grad()
def validate(model: Generator, tokens: Tensor, labels: Tensor | None, config: Training, draws: int = 4) -> float:
    """Held-out loss as trained: the same kind of order, labels given; the same `draws` orders of an image each time."""
    fixed, total = Training(order=config.order, label_dropout=0.0, seed=-1), 0.0
    with model.evaluating():
        for epoch in range(draws):
            for rows in torch.arange(len(tokens)).split(512):
                total += loss(model, make_batch(tokens, labels, model, fixed, epoch, rows)).item() * len(rows)
    return total / (draws * len(tokens))


def train(
    model: Generator,
    tokens: Tensor,
    labels: Tensor | None,
    validation: tuple[Tensor, Tensor | None] | None,
    config: Training,
    on_step: Callable[[int, float], None] | None = None,
) -> History:
    """Trains in place and leaves the model in evaluation mode, with the weights of the best validation.

    tokens: (n, N) in raster space, or (n, crops, N); labels: (n,) class indices, or None to train without labels;
    validation: the same of held-out images, or None to keep the last step's weights. on_step: called with (steps
    done, loss of the step).
    """
    history, began = History(), time.perf_counter()
    optimiser = make_optimiser(model, config)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: learning_rate_factor(step, config))
    averaged = (
        torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(config.ema))
        if config.ema
        else None
    )
    judged: Generator = averaged.module if averaged else model  # type: ignore[assignment]
    best, kept = math.inf, judged.state_dict()
    model.train()
    for step, batch in enumerate(batches(tokens, labels, model, config), 1):
        with torch.random.fork_rng():
            torch.manual_seed(int(seeding.derive(config.seed, step, 3)))
            value = loss(model, batch)
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimiser.step()
        schedule.step()
        if averaged:
            averaged.update_parameters(model)
        history.train.append((step, value.item()))
        if on_step:
            on_step(step, history.train[-1][1])
        if validation is None:
            history.kept_step = step
        elif step % config.eval_every == 0 or step == config.steps:
            held_out = validate(judged, *validation, config)
            history.validation.append((step, held_out))
            if held_out < best:
                best, history.kept_step = held_out, step
                kept = {name: value.clone() for name, value in judged.state_dict().items()}
            elif config.patience and step - history.kept_step >= config.patience * config.eval_every:
                break
    model.load_state_dict(kept)
    model.eval()
    history.seconds = time.perf_counter() - began
    return history


def make_optimiser(model: Generator, config: Training) -> torch.optim.Optimizer:
    """AdamW that decays every parameter of two or more dimensions, embeddings too, as both papers' code does."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    return torch.optim.AdamW(
        [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=config.learning_rate,
        betas=config.betas,
        fused=True,
    )


def learning_rate_factor(step: int, config: Training) -> float:
    """Linear warm-up, then a cosine from 1 to `final_lr_ratio`."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    share = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.final_lr_ratio + (1 - config.final_lr_ratio) * (1 + math.cos(math.pi * min(share, 1))) / 2
