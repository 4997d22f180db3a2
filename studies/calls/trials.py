"""Trials: a schedule that follows from the model's loss, and tokens in the order of the model's confidence."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from sklearn.isotonic import IsotonicRegression
from torch import Tensor

from randfeat import Pipeline, Sampling
from randfeat.data.builtin import load_fashion_part
from randfeat.inference.likelihood import orders_of, token_log_prob
from randfeat.inference.sampling import guided
from randfeat.inference.schedules import tokens_per_step
from randfeat.inference.step import draw
from randfeat.utils import rng

READ = 1000  # images that the loss is the mean of
GUMBEL = 4.5  # temperature of the noise on confidence at the first step, which falls to 0 at the last (MaskGIT's)


@cache
def loss_by_place(model: Pipeline) -> tuple[float, ...]:
    """Return the mean loss in nats of the first, second, ... token of a random order, of training images."""
    part = load_fashion_part()
    tokens = model.encode(part.images[:READ]).cpu()
    rows = torch.arange(len(tokens))
    labels = torch.from_numpy(np.asarray(part.labels[:READ]))
    table = orders_of(model.generator, len(tokens))
    parts = token_log_prob(model.inference_generator(), tokens, table, (rows, labels, rows))
    return tuple((-torch.cat(list(parts))).mean(0).tolist())


def sizes(loss: tuple[float, ...], steps: int) -> tuple[int, ...]:
    """Return the tokens of each step that lose least: those of a step are predicted from what was known before it.

    A token costs the loss of the first place of its step, where one token a step costs that of its own; the sum is the
    least among all ways to cut the order into steps (dynamic programming).
    """
    count = len(loss)
    falling = IsotonicRegression(increasing=False).fit_transform(np.arange(count), loss)  # a mean over images is noisy
    best = np.full((steps + 1, count + 1), np.inf)
    before = np.zeros((steps + 1, count + 1), int)
    best[0, 0] = 0
    for step in range(1, steps + 1):
        for end in range(step, count + 1):
            starts = np.arange(step - 1, end)
            costs = best[step - 1, starts] + (end - starts) * falling[starts]
            before[step, end] = starts[costs.argmin()]
            best[step, end] = costs.min()
    ends = [count]
    for step in range(steps, 0, -1):
        ends.append(int(before[step, ends[-1]]))
    return tuple(int(size) for size in np.diff(ends[::-1]))


@torch.no_grad()
def by_confidence(model: Pipeline, labels: Tensor, seeds: Tensor, how: Sampling) -> Tensor:
    """Return tokens (B, N) of an ARPG that predicts all positions left in each step, draws them, and keeps those that
    are likeliest, with noise that fades (as MaskGIT, arXiv 2202.04200).
    """
    network, count = model.inference_generator(), model.generator.num_tokens
    both = torch.cat((labels, torch.full_like(labels, network.num_classes)))
    state, last = network.start(both), None
    left = torch.arange(count).expand(len(labels), -1)
    tokens = torch.zeros_like(left)
    plan, done = tokens_per_step(how.schedule, count, how.steps), 0
    for step, size in enumerate(plan):
        with torch.inference_mode():
            raw = network.step(state, last, left.repeat(2, 1)).float()
        logits = how.filtered(guided(raw, how.guidance.at(done, size, count)))
        new = draw(logits, rng.uniform(rng.derive(seeds, 1, step), left.shape[1]))
        confidence = logits.log_softmax(-1).gather(-1, new.unsqueeze(-1)).squeeze(-1)
        noise = -rng.exponential(rng.derive(seeds, 2, step), left.shape[1]).log()
        ranked = (confidence + GUMBEL * (1 - (step + 1) / len(plan)) * noise).argsort(1, descending=True)
        kept, rest = ranked[:, :size], ranked[:, size:]
        tokens = tokens.scatter(1, left.gather(1, kept), new.gather(1, kept))
        state.asked, last = left.gather(1, kept).repeat(2, 1), new.gather(1, kept).repeat(2, 1)
        left, done = left.gather(1, rest), done + size
    return tokens
