"""Exact parallel sampling: the tokens of decoding one by one, in a fraction of the calls.

One call predicts all tokens that are left, each without knowing the others, and they are drawn: drafts. The next call
is given the drafts and predicts each of them from all tokens before it, as decoding one by one would if the drafts
before it were right. Each is drawn anew from that, by the same noise as before. The first draft is decided then, since
all before it is; where the draw comes out as the draft did, the next one is decided as well, and so on up to the first
that differs, which takes its new value. What follows are better drafts for the next call.

So the tokens are those of one step for each, drawn by the same noise: not only is their distribution the same, each
image is (but for near-ties, because matrix products of another size round differently). With the noise of
`draw_by_race` a draw comes out as the draft did unless the two distributions differ much.

Any-subset speculation (arXiv 2504.20456) drafts and checks as this does, but accepts a draft by rejection sampling.
Fixed noise for each place is that of predictive sampling (arXiv 2002.09928); on the trained models it takes slightly
fewer calls than rejection sampling, whose drafts change from call to call, and keeps no distribution of a former call.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models import Generator, orders
from ..utils import rng
from .step import UNKNOWN, Pass, Step, draw_by_race


@torch.no_grad()
def steps(run: Pass, draft: int) -> Iterator[Step]:
    """Decode until every image is complete, and yield after each call.

    draft: drafts that a call checks, at most. Images of a batch progress each at its own pace, and leave it when they
    are complete. Raises a ValueError for a model that cannot check drafts.
    """
    if type(run.model).verify is Generator.verify:
        name = type(run.model).__name__
        raise ValueError(f"{name} cannot check drafted tokens, as exact sampling does: leave exact out")
    (batch, count), device = run.order.shape, run.order.device
    width = min(draft + 1, count - run.done)  # tokens that a call after the first predicts
    # padded, so that the last calls may ask beyond the end
    order, drafts = F.pad(run.order, (0, width)), F.pad(run.known.gather(1, run.order), (0, width))
    decided = torch.full((batch,), run.done, device=device)
    calls, rows = torch.zeros_like(decided), torch.arange(batch, device=device)
    while run.done < count and len(rows):
        before = decided[rows]
        predicted = count - run.done if run.state.asked is None else width
        places = before.unsqueeze(1) + torch.arange(predicted, device=device)
        asked, checked = order[rows].gather(1, places), drafts[rows].gather(1, places)
        raw = _predict(run, order[rows], drafts[rows], places)
        logits = run.logits(raw, run.scales(places, 1), asked, rows)
        new = draw_by_race(run.filtered(logits), rng.derive(run.seeds[rows].unsqueeze(1), 5, places))
        right = (new == checked)[:, :-1].long().cumprod(1).sum(1)
        after = (before + 1 + right).clamp(max=count)
        drafts[rows] = drafts[rows].scatter(1, places, new)
        decided[rows], calls[rows] = after, calls[rows] + 1
        positions = torch.where(places < after.unsqueeze(1), asked, UNKNOWN)
        most = int((after - before).max())
        positions, logits, raw = (_for_all(part[:, :most], rows, batch) for part in (positions, logits, raw))
        yield Step(_canvas(run.order, drafts, decided), positions, logits, raw, calls.clone())
        unfinished = (after < count).nonzero().flatten()
        if len(unfinished) < len(rows):
            run.state.keep(torch.cat([copy * len(rows) + unfinished for copy in range(run.copies)]))
            rows = rows[unfinished]


def _predict(run: Pass, order: Tensor, drafts: Tensor, places: Tensor) -> Tensor:
    """Return the logits at places (b, n) of the order from one call of the network: (branches * b, n, V)."""
    copies, before = run.copies, places[:, :1] - 1
    asked = order.gather(1, places).repeat(copies, 1)
    with torch.inference_mode():
        if run.state.asked is None:  # the first call
            return run.model.step(run.state, None, asked).float()
        fed = drafts.gather(1, places - 1).repeat(copies, 1)
        around = torch.cat((order.gather(1, before).repeat(copies, 1), asked), 1)
        return run.model.verify(run.state, fed, around, places[:, 0].repeat(copies)).float()


def _canvas(order: Tensor, drafts: Tensor, decided: Tensor) -> Tensor:
    """Return the tokens that are decided, in raster space: (B, N)."""
    places = torch.arange(order.shape[1], device=order.device)
    return orders.scatter(torch.where(places < decided.unsqueeze(1), drafts[:, : len(places)], UNKNOWN), order)


def _for_all(values: Tensor, rows: Tensor, batch: int) -> Tensor:
    """Return values (branches * b, n, ...) of some images as those of all, (branches * B, n, ...), else UNKNOWN."""
    if len(rows) == batch:
        return values
    copies = len(values) // len(rows)
    whole = values.new_full((copies, batch, *values.shape[1:]), UNKNOWN)
    whole[:, rows] = values.unflatten(0, (copies, -1))
    return whole.flatten(0, 1)
