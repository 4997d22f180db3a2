"""A training step, and the curve of a training, beside the official networks and losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from randfeat.pretrain import Batches, Objective, RuntimeConfig, TrainingConfig, train
from randfeat.pretrain.data import Batch
from randfeat.pretrain.optim import learning_rate, make_optimizer, update
from randfeat.pretrain.parallel import configured_blocks
from torch import Tensor, nn

from benchmarks import official
from benchmarks.cases import Case, Make, Setting
from benchmarks.networks import fresh, tokens_of
from randfeat.models import Generator, orders

TINY = dict(grid=(8, 8), vocab_size=256, num_classes=10, embed_dim=64, depth=2, num_heads=4, ffn_dim=256)
ROUNDING = 2.0**-23


def batch_of(model: Generator, images: int) -> Batch:
    seeds = torch.arange(images)
    order = orders.random(model.grid, seeds).contiguous()
    return Batch(tokens_of(model, images), seeds * 100 % model.num_classes, order)


def official_loss(theirs: nn.Module, batch: Batch) -> Tensor:
    """Return the official forward's own loss for these orders; labels were dropped when the batch was made."""
    if hasattr(theirs, "remove_caches"):  # RandAR
        theirs.cls_embedding.dropout_prob = 0.0
        return theirs(batch.tokens, batch.labels, batch.order, targets=batch.tokens)[1]
    theirs.config.class_dropout_prob = 0.0
    names = type(theirs).forward.__globals__
    shuffle = names["batch_seq_shuffle"]
    # the code takes no orders: its shuffle is replaced here
    names["batch_seq_shuffle"] = lambda x, given=None: shuffle(x, batch.order if given is None else given)
    try:
        return theirs(batch.tokens, batch.labels.clone(), targets=batch.tokens)[1]
    finally:
        names["batch_seq_shuffle"] = shuffle


def plain_loss(model: Generator, batch: Batch) -> Tensor:
    """Return the loss in a line of torch, with the logits of all tokens at once."""
    logits = model(batch.tokens, batch.labels, batch.order).flatten(0, 1)
    return nn.functional.cross_entropy(logits, orders.gather(batch.tokens, batch.order).flatten())


def by_torch(
    model: nn.Module, loss_of: Callable[[Any, Batch], Tensor], batch: Batch, in_bfloat16: bool
) -> Callable[[], None]:
    """Return a call that takes one step as the official trainers do."""
    config = TrainingConfig(warmup=0)
    optimizer = make_optimizer(model, config)  # the official networks have the same groups

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=in_bfloat16):
            loss = loss_of(model, batch)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def by_us(model: Generator, batch: Batch, in_bfloat16: bool, recompute: bool) -> Callable[[], None]:
    config = TrainingConfig(warmup=0)
    objective, optimizer = Objective(model, in_bfloat16), make_optimizer(model, config)

    def step() -> None:
        with configured_blocks(model, RuntimeConfig(recompute=recompute)):
            (objective(batch.tokens, batch.labels, batch.order)[0] / batch.tokens.numel()).backward()
        update(optimizer, [model], 0, config)
        optimizer.zero_grad(set_to_none=True)

    return step


def training(setting: Setting) -> Iterator[Case]:
    """Yield a step of forward and backward pass with dropout, clipping and AdamW; bfloat16 is autocast's, with weights
    in float32, as in the official trainers.
    """
    images = setting.pick(2, 4, 4)
    for dtype in setting.dtypes:
        for name in ("randar", "arpg"):

            def model(name: str = name) -> Generator:
                return fresh(name, setting.size, dropout=0.1).train()

            def make(side: str, name: str = name, model: Callable = model, half: bool = dtype == "bfloat16") -> Any:
                ours = model()
                batch = batch_of(ours, images)
                if side == "official":
                    return by_torch(official.build(ours, setting.peers[name]).train(), official_loss, batch, half)
                if side == "plain torch":
                    return by_torch(ours, plain_loss, batch, half)
                return by_us(ours, batch, half, side == "recomputing activations")

            sides = ["plain torch", "recomputing activations", *["official"] * (name in setting.peers)]
            peers: dict[str, Make] = {side: partial(make, side) for side in sides}
            label = f"{name} {setting.size} {dtype}, step of {images} images"
            yield Case(label, partial(make, "ours"), peers, images, dtype=dtype)


# the curve ------------------------------------------------------------------------------------------------------------


def curves(setting: Setting) -> Iterator[Case]:
    """Yield the training of a small model without dropout, whose losses are compared with the official ones.

    From the same weights, on the same batches. Beside the difference of both sides stands that of the official side
    from itself with weights moved by one rounding, the limit of float32.
    """
    steps = setting.pick(5, 50, 300)
    for name in ("randar", "arpg"):
        if name in setting.peers:
            yield Case(
                f"{name}, curve of {steps} steps",
                partial(partial, our_curve, name, steps),
                {"official": partial(partial, official_curve, name, steps, setting, 0.0)},
                steps,
                "steps",
                facts=partial(curve_differences, name, steps, setting),
            )


def material(name: str, steps: int) -> tuple[Generator, Tensor, Tensor, TrainingConfig]:
    """Return learnable images: each a row of numbers that count up, with some noise."""
    model, draw = fresh(name, "tiny", **TINY), torch.Generator().manual_seed(0)
    first, noise = torch.randint(256, (512, 1), generator=draw), torch.rand(512, 64, generator=draw)
    tokens = (first + torch.arange(64)) % 256
    tokens = torch.where(noise < 0.1, torch.randint(256, (512, 64), generator=draw), tokens)
    config = TrainingConfig(steps=steps, batch_size=32, warmup=steps // 10, learning_rate=1e-3)
    return model, tokens, torch.arange(512) % 10, config


def our_curve(name: str, steps: int) -> list[float]:
    model, tokens, labels, config = material(name, steps)
    return [loss for _, loss in train(model, tokens, labels, None, config).train]


def official_curve(name: str, steps: int, setting: Setting, moved_by: float) -> list[float]:
    model, tokens, labels, config = material(name, steps)
    source, theirs = Batches(tokens, labels, model, config), official.build(model, setting.peers[name])
    for module in theirs.train().modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter *= 1 + moved_by
    optimizer, losses = make_optimizer(theirs, config), []
    factor = partial(learning_rate, config=replace(config, learning_rate=1.0))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    for step in range(config.steps):
        (batch,) = source.at(step)
        loss = official_loss(theirs, batch)
        losses.append(loss.item())
        loss.backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), config.clip)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
    return losses


def curve_differences(name: str, steps: int, setting: Setting) -> Mapping[str, Any]:
    theirs, moved = (official_curve(name, steps, setting, by) for by in (0.0, ROUNDING))
    ours = our_curve(name, steps)
    apart = [max(abs(a - b) for a, b in zip(theirs, other, strict=True)) for other in (ours, moved)]
    return {"largest difference of a loss, ours": apart[0], "official, weights moved": apart[1]}
