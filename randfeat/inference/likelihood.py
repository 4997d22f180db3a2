"""The likelihood of an image, classification by it (arXiv 2603.19122) and surprise: log p averaged over K orders.

A pass is one image read once, in one order and with one label; passes are what likelihoods cost. All images and all
classes are read in the same K orders, and passes of any images, classes and orders share a batch.

What passes of one image and order that differ in the class could share is little: behind the class everything depends
on it but the first block's attention (`benchmarks/likelihood.py` measures that), so nothing is shared here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ..models import Generator, orders
from ..utils import rng

LOGITS_AT_ONCE = 256 * 2**20  # bytes of them in float32: what bounds a batch where V is large
Tick = Callable[[int], object]


def orders_of(model: Generator, count: int, mode: str | None = None, seed: int = 0) -> Tensor:
    """Return the orders that a likelihood is averaged over: int64 (count, N), or (1, N) in a mode that has but one.

    mode: by default random where the model can. The first k of more orders are those of k.
    """
    if count < 1:
        raise ValueError(f"a likelihood needs at least one order, got {count}")
    mode = model.check_order_mode(mode)
    seeds = rng.derive(seed, torch.arange(count if mode == "random" else 1))
    return orders.make(mode, model.grid, seeds)


def passes_at_once(model: Generator, length: int) -> int:
    """Return how many passes over `length` tokens make one batch: on a CPU what its caches hold, and everywhere as many
    as keep the logits within `LOGITS_AT_ONCE`.
    """
    return max(1, min(model.images_at_once(), LOGITS_AT_ONCE // (4 * length * model.vocab_size)))


def token_log_prob(
    model: Generator,
    tokens: Tensor,
    table: Tensor,
    rows: tuple[Tensor, Tensor, Tensor],
    tick: Tick = lambda passes: None,
    at_once: int | None = None,
) -> Iterator[Tensor]:
    """log p of each token given the label and those before it, in nats, in order space: batch after batch, float32
    (b, n) on the CPU.

    tokens: (B, N). table: orders (K, n), which may be cut short, n <= N. rows: of each pass the row in `tokens`, the
    label and the row in `table`, each (R,). tick: called with the number of passes after each batch.
    """
    tokens, table = tokens.to(model.device), table.to(model.device)
    at_once = at_once or passes_at_once(model, table.shape[1])
    for image, label, place in zip(*(part.split(at_once) for part in rows), strict=True):
        with torch.no_grad(), model.evaluating():
            chunk, order = tokens[image.to(model.device)], table[place.to(model.device)]
            logits = model(chunk, label.to(model.device), order).float()
            wanted = logits.gather(-1, orders.gather(chunk, order).unsqueeze(-1)).squeeze(-1)
            found = (wanted - logits.logsumexp(-1)).cpu()
        tick(len(found))
        yield found


def log_prob(
    model: Generator,
    tokens: Tensor,
    labels: Tensor | None = None,
    count: int = 1,
    mode: str | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    tick: Tick = lambda passes: None,
) -> Tensor:
    """log p(tokens | label) in nats, for each of `count` orders that all images share: (B, N), (B,) -> float32 (B,
    count).

    labels: class indices, None for the null class. mode: of the orders, by default random where the model can; the
    others have one order, which is read once. batch_size: passes at once, by default see `passes_at_once`. tick: called
    with the number of passes after each batch.
    """
    table = orders_of(model, count, mode, seed)
    labels = torch.full((len(tokens),), model.num_classes) if labels is None else labels
    place, image = _every(len(table), len(tokens))
    sums = [
        part.sum(1) for part in token_log_prob(model, tokens, table, (image, labels[image], place), tick, batch_size)
    ]
    return torch.cat(sums).view(len(table), -1).T.expand(-1, count)


def class_log_prob(
    model: Generator,
    tokens: Tensor,
    classes: Sequence[int] | None = None,
    count: int = 1,
    mode: str | None = None,
    seed: int = 0,
    tick: Tick = lambda passes: None,
) -> Tensor:
    """log p(tokens | class) for each class (all by default) on the same orders: (B, N) -> float32 (B, C, count).

    Its mean over the last dimension ranks the classes: the mean of log p does better than the mean of p.
    """
    label = check_classes(model, classes)
    table = orders_of(model, count, mode, seed)
    place, image, column = _every(len(table), len(tokens), len(label))
    sums = [part.sum(1) for part in token_log_prob(model, tokens, table, (image, label[column], place), tick)]
    return torch.cat(sums).view(len(table), len(tokens), -1).permute(1, 2, 0).expand(-1, -1, count)


def check_classes(model: Generator, classes: Sequence[int] | None) -> Tensor:
    """Return the indices of the classes, all by default: (C,). A ValueError for what is no class of the model."""
    classes = range(model.num_classes) if classes is None else classes
    if not len(classes):
        raise ValueError("this model was trained without labels: it cannot classify by likelihood")
    wrong = [c for c in classes if not 0 <= c < model.num_classes]
    if wrong:
        raise ValueError(f"class {wrong[0]} is outside 0..{model.num_classes - 1}")
    return torch.tensor(list(classes))


def surprise(
    model: Generator,
    tokens: Tensor,
    labels: Tensor | None = None,
    count: int = 16,
    exact: bool = False,
    mode: str | None = None,
    seed: int = 0,
    tick: Tick = lambda passes: None,
) -> Tensor:
    """How unexpected each token is: the mean over `count` orders of -log p(token | those before it), float32 (B, N) in
    raster space, in nats.

    exact: given all others: the token is moved to the end of each order, and a pass tells of one token alone, so it
    takes N times as many. labels: as in `log_prob`.
    """
    table = orders_of(model, count, mode, seed)
    labels = torch.full((len(tokens),), model.num_classes) if labels is None else labels
    if exact:
        return -_given_all_others(model, tokens, table, labels, tick)
    place, image = _every(len(table), len(tokens))
    found = torch.cat(list(token_log_prob(model, tokens, table, (image, labels[image], place), tick)))
    return -orders.scatter(found, table[place]).view(len(table), *tokens.shape).mean(0)


def _given_all_others(model: Generator, tokens: Tensor, table: Tensor, labels: Tensor, tick: Tick) -> Tensor:
    if model.raster_only:
        raise ValueError(f"{type(model).__name__} sees what comes before a token, never all others: leave exact out")
    last = torch.arange(model.num_tokens)
    moved = orders.known_first(table.unsqueeze(1), last != last[:, None])  # (K, N, N), position j at the end of j's
    place, image, position = _every(len(table), len(tokens), model.num_tokens)
    found = []
    for rows in torch.arange(len(place)).split(passes_at_once(model, 1)):
        order = moved[place[rows], position[rows]].to(model.device)
        chunk = tokens[image[rows]].to(model.device).gather(1, order)
        with torch.no_grad(), model.evaluating():
            state = model.start(labels[image[rows]].to(model.device), chunk[:, :-1], order[:, :-1])
            logits = model.step(state, None, order[:, -1:])[:, 0].float()
        wanted = logits.gather(-1, chunk[:, -1:])[:, 0] - logits.logsumexp(-1)
        found.append(wanted.cpu())
        tick(len(rows))
    return torch.cat(found).view(len(table), *tokens.shape).mean(0)


def _every(*sizes: int) -> tuple[Tensor, ...]:
    """Of every combination of indices below these sizes, the last one fastest: one tensor for each size."""
    return tuple(index.flatten() for index in torch.meshgrid(*map(torch.arange, sizes), indexing="ij"))
