"""Likelihoods of images: of all tokens, of each token, of known tokens alone, and classification by them.

log p(image | label) is averaged over K orders; classification takes the class with the highest mean (arXiv 2603.19122).
A pass is one image read once, in one order and with one label; passes are the cost of a likelihood. All images and all
classes are read in the same K orders, and passes of any images, classes and orders share a batch.

Passes of one image and order that differ only in the class could share little: all after the class token depends on it
but the first block's attention (`python -m benchmarks --jobs likelihood` measures that), so nothing is shared here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..models import Generator, orders, packed
from ..utils import rng
from ..utils.checks import is_whole_number

LOGITS_AT_ONCE = 256 * 2**20  # bytes of them in float32: the bound of a batch where V is large
KNOWN_TOKENS_AT_ONCE = 256 * 256  # tokens of one batch in `known_log_prob`
Tick = Callable[[int], object]

# results -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class LogProb:
    """log p(image | label) in nats. each: for every image and order, float32 (B, K)."""

    each: Tensor

    @property
    def mean(self) -> Tensor:
        """Mean over the orders: float32 (B,)."""
        return self.each.mean(1)

    @property
    def std(self) -> Tensor:
        """Standard deviation over the orders: float32 (B,), NaN for a single one."""
        if self.each.shape[1] == 1:
            return torch.full((len(self.each),), torch.nan)
        return self.each.std(1)


class RankedClass(NamedTuple):
    """A class of an image: label, its index in the model; name; probability among the classes asked for;
    log p(image | class) in nats.
    """

    label: int
    name: str
    probability: float
    log_prob: float


@dataclass(frozen=True, eq=False)
class Classification:
    """Likelihoods of B images under C classes, with the ranking that follows from them.

    log_prob: mean over the orders of log p(image | class) in nats, float32 (B, C); -inf for a class that successive
    halving dropped before it was read in a whole order. order: columns of log_prob, the best first, int64 (B, C);
    classes that successive halving kept for longer stand first, whatever their log_prob. indices, names: of the
    columns. passes: passes taken for each image, float32 (B,). skipped: rows of the images that could not be read,
    which have no class: log_prob is NaN, passes 0.
    """

    log_prob: Tensor
    order: Tensor
    indices: list[int]
    names: list[str]
    passes: Tensor
    skipped: Sequence[int] = ()

    @property
    def best(self) -> Tensor:
        """Index in the model of each image's best class, -1 of a skipped image: int64 (B,)."""
        best = torch.tensor(self.indices)[self.order[:, 0]]
        best[list(self.skipped)] = -1
        return best

    @property
    def probabilities(self) -> Tensor:
        """Probabilities of the classes under a uniform prior: the softmax of `log_prob`, float32 (B, C)."""
        return self.log_prob.softmax(1)

    def top(self, k: int = 5) -> list[list[RankedClass]]:
        """Return the k best classes of each image, the best first; none of a skipped image."""
        if k < 1:
            raise ValueError(f"top needs a number of classes from 1, got {k}")
        shares = self.probabilities
        found: list[list[RankedClass]] = []
        skipped = set(self.skipped)
        for row, columns in enumerate(self.order[:, :k].tolist()):
            if row in skipped:
                found.append([])
                continue
            found.append(
                [
                    RankedClass(self.indices[c], self.names[c], float(shares[row, c]), float(self.log_prob[row, c]))
                    for c in columns
                ]
            )
        return found

    def ranked(self) -> list[list[RankedClass]]:
        """Return all classes of each image, the best first."""
        return self.top(len(self.indices))

    @classmethod
    def concatenated(cls, parts: Sequence[Classification]) -> Classification:
        """Return the classification of several batches of images as one."""
        columns = [torch.cat([getattr(part, name) for part in parts]) for name in ("log_prob", "order", "passes")]
        return cls(columns[0], columns[1], parts[0].indices, parts[0].names, columns[2])

    def with_skipped(self, skipped: Sequence[int]) -> Classification:
        """Return the classification with rows for images that could not be read, at these places of the result."""
        if not skipped:
            return self
        count = len(self.order) + len(skipped)
        read = torch.ones(count, dtype=torch.bool)
        read[list(skipped)] = False
        scores = torch.full((count, len(self.indices)), torch.nan)
        order = torch.arange(len(self.indices)).repeat(count, 1)
        passes = torch.zeros(count)
        scores[read], order[read], passes[read] = self.log_prob, self.order, self.passes
        return Classification(scores, order, self.indices, self.names, passes, tuple(skipped))


# passes --------------------------------------------------------------------------------------------------------------


def orders_of(model: Generator, count: int, mode: str | None = None, seed: int = 0) -> Tensor:
    """Return the orders that a likelihood is averaged over: int64 (count, N), or (1, N) in a mode that has but one.

    mode: by default random where the model can. The first k of more orders are those of k.
    """
    if not is_whole_number(count, 1):
        raise ValueError(f"a likelihood needs at least one order, got {count}")
    mode = model.check_order_mode(mode)
    seeds = rng.derive(seed, torch.arange(count if mode in orders.SEEDED else 1))
    return orders.make(mode, model.grid, seeds)


def viewed(tokens: Tensor, table: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the tokens of images with an axis for their views, and an order for each pass: (B, V, N), (P, N).

    tokens: (B, N), or (B, V, N) of which order k reads view k modulo V. table: of `orders_of`. In a mode that has but
    one order there is a pass for each of V views, at most `count`.
    """
    if tokens.ndim == 2:
        return tokens.unsqueeze(1), table
    return tokens, table.expand(min(count, tokens.shape[1]), -1) if len(table) == 1 else table


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
    """Yield log p of each token given the label and the tokens before it, in nats, in order space: batch after batch,
    float32 (b, n) on the CPU.

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


# whole images and classes --------------------------------------------------------------------------------------------


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
    """Return log p(tokens | label) in nats, for each of `count` orders that all images share: float32 (B, count).

    tokens: (B, N) in raster space. labels: class indices (B,), None for the null class. mode: of the orders, by default
    random where the model can; the others have one order, which is read once. batch_size: passes at once, by default
    see `passes_at_once`. tick: called with the number of passes after each batch.
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
    """Return log p(tokens | class) for each class (all by default) in the same orders: (B, N) -> float32 (B, C, count).

    Its mean over the last dimension ranks the classes: the mean of log p does better than the mean of p. tokens: also
    of several views, (B, V, N), see `views`.
    """
    label = check_classes(model, classes)
    tokens, table = viewed(tokens, orders_of(model, count, mode, seed), count)
    place, image, column = _every(len(table), len(tokens), len(label))
    rows = view_of(tokens, image, place), label[column], place
    sums = [part.sum(1) for part in token_log_prob(model, tokens.flatten(0, 1), table, rows, tick)]
    return torch.cat(sums).view(len(table), len(tokens), -1).permute(1, 2, 0)[..., torch.arange(count) % len(table)]


def view_of(tokens: Tensor, image: Tensor, place: Tensor) -> Tensor:
    """Return the rows of tokens (B, V, N), flattened over images and views, that some images are read in by an order.

    image: (R,). place: of the order, (R,).
    """
    views = tokens.shape[1]
    return image * views + place % views


def check_classes(model: Generator, classes: Sequence[int] | None) -> Tensor:
    """Return the indices of the classes, all by default: (C,). A ValueError for what is no class of the model."""
    classes = range(model.num_classes) if classes is None else classes
    if not len(classes):
        raise ValueError("this model was trained without labels: it cannot classify by likelihood")
    wrong = [c for c in classes if not 0 <= c < model.num_classes]
    if wrong:
        raise ValueError(f"class {wrong[0]} is outside 0..{model.num_classes - 1}")
    return torch.tensor(list(classes))


# tokens --------------------------------------------------------------------------------------------------------------


def surprisal(
    model: Generator,
    tokens: Tensor,
    labels: Tensor | None = None,
    count: int = 16,
    exact: bool = False,
    mode: str | None = None,
    seed: int = 0,
    tick: Tick = lambda passes: None,
) -> Tensor:
    """Return the per-token negative log-likelihood, the surprisal: the mean over `count` orders of
    -log p(token | tokens before it), in nats, float32 (B, N) in raster space.

    exact: given all other tokens: the token is moved to the end of each order, and a pass yields one token alone, so it
    takes N times as many passes. labels: as in `log_prob`.
    """
    table = orders_of(model, count, mode, seed)
    labels = torch.full((len(tokens),), model.num_classes) if labels is None else labels
    if exact:
        return -_given_all_others(model, tokens, table, labels, tick)
    place, image = _every(len(table), len(tokens))
    found = torch.cat(list(token_log_prob(model, tokens, table, (image, labels[image], place), tick)))
    return -orders.scatter(found, table[place]).view(len(table), *tokens.shape).mean(0)


def _given_all_others(model: Generator, tokens: Tensor, table: Tensor, labels: Tensor, tick: Tick) -> Tensor:
    """Return the mean over the orders of log p(token | all other tokens): float32 (B, N) in raster space."""
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


# known parts of images -----------------------------------------------------------------------------------------------


@torch.no_grad()
def known_log_prob(model: Generator, tokens: Tensor, known: Tensor, count: int, seed: int = 0) -> Tensor:
    """Return the mean over `count` orders of log p(known tokens | class), in nats: float32 (B, classes).

    With the known tokens first in the order, the chain rule stops after them, so a random-order model gives this for
    any part of an image; a model of raster order alone only for the known tokens before the first unknown one.

    tokens: (B, N) in raster space; the values of unknown tokens do not matter. known: bool (N,).
    """
    tokens, known = tokens.to(model.device), known.to(model.device)
    network, classes, batch = packed.inference_copy(model), model.num_classes, len(tokens)
    total = torch.zeros(batch * classes, device=model.device)
    count = count if model.order_modes[0] in orders.SEEDED else 1
    for k in range(count):
        seeds = rng.derive(torch.tensor([seed]), 7, k)
        order = orders.make(model.order_modes[0], model.grid, seeds).to(model.device)
        if not model.raster_only:
            order = orders.known_first(order, known)
        counted = _readable(model, known)[order[0]]
        read = tokens.gather(1, order.expand(batch, -1))
        for rows in torch.arange(batch * classes, device=model.device).split(
            max(1, KNOWN_TOKENS_AT_ONCE // tokens.shape[1])
        ):
            of = rows // classes
            logits = network(tokens[of], rows % classes, order.expand(len(rows), -1))[:, counted].float()
            picked = logits.log_softmax(-1).gather(-1, read[of][:, counted].unsqueeze(-1))
            total[rows] += picked.sum((1, 2)) / count
    return total.view(batch, classes)


def guess_class(model: Generator, tokens: Tensor, known: Tensor, count: int) -> Tensor:
    """Return the class under which the known tokens are likeliest, the null class where none is known: int64 (B,).

    The rest of an image is then painted towards that class. Under the null class, which a model saw in a small part of
    its training, it paints less well.
    """
    scores = known_log_prob(model, tokens, known, count)
    if not _readable(model, known).any():
        return torch.full((len(tokens),), model.num_classes)
    return scores.argmax(1).cpu()


def _readable(model: Generator, known: Tensor) -> Tensor:
    """Return the known tokens whose predecessors are all known in some order that the model can read: bool (N,)."""
    return known.cummin(0).values if model.raster_only else known


def _every(*sizes: int) -> tuple[Tensor, ...]:
    """Return every combination of indices below these sizes, the last one fastest: one tensor for each size."""
    return tuple(index.flatten() for index in torch.meshgrid(*map(torch.arange, sizes), indexing="ij"))
