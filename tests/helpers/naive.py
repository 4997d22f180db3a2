"""The generators once more, the slow way, as the oracle of the fast one.

Everything is recomputed at every call: no cache, explicit masks, explicit softmax, real rotations, double
precision. Only the parameters come from the library.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from randfeat.models import Generator, PositionedARPG


@dataclass
class Reading:
    """Record of one call, by block: the state at the last token read and the states at the positions asked for."""

    token: list[Tensor]  # (B, D)
    query: list[Tensor]  # (B, n, D)
    logits: Tensor  # (B, n, V)


def read(
    model: Generator,
    label: Tensor,
    tokens: Tensor,
    places: Tensor,
    asked: Tensor,
    within_step: str = "causal",
    steps: Sequence[int] = (),
    full: bool = False,
    bare: bool = False,
    condition: Tensor | None = None,
) -> Reading:
    """Reads the class, then `tokens` (B, m) at `places` (B, m), and asks about the positions `asked` (B, n).

    steps: for each token the sampling step that decoded it, from 1, or 0 if it was known from the start.
    full: all that is read sees all that is read. bare: RandAR reads tokens without the instructions before them.
    condition: (B, N, D), added to what asks for a position.
    """
    naive, model = NAIVE[type(model).__name__], copy.deepcopy(model).double()
    if condition is None:  # the one by which the tests steer, if they do
        condition = model.check_condition(None, len(label))
    return naive(model, label, tokens, places, asked, within_step, steps, full, bare, condition)


def llamagen(model, label, tokens, places, asked, within_step, steps, full, bare, condition):
    """class, x, x, ..., x under a plain causal mask; the last of them predicts."""
    assert within_step == "causal"
    x = torch.cat((model.label_embedding(label)[:, None], model.token_embedding(tokens)), 1)
    at = torch.cat((torch.full_like(label, -1)[:, None], places), 1)
    mask, token = torch.ones(x.shape[1], x.shape[1]).tril(x.shape[1] * full).bool(), []
    for block in model.blocks:
        x = layer(block, x, lambda h, b=block: self_attention(b.attn, h, at, mask, model))
        token.append(x[:, -1])
    return Reading(token, [], rms_norm(x[:, -1:], model.norm) @ model.head.weight.T)


def randar(model, label, tokens, places, asked, within_step, steps, full, bare, condition):
    """class, q, x, q, x, ..., q, q, q under a plain causal mask."""
    assert within_step == "causal"

    def instruction(at):
        return turn(model.instruction.view(1, 1, model.num_heads, -1), at, model).flatten(2) + there(condition, at)

    x, at = [model.label_embedding(label)[:, None]], [torch.full_like(label, -1)[:, None]]
    for i in range(tokens.shape[1]):
        pair = [instruction(places[:, i : i + 1]), model.token_embedding(tokens[:, i : i + 1])]
        x += pair[bare:]
        at += [places[:, i : i + 1]] * len(pair[bare:])
    x, at = torch.cat((*x, instruction(asked)), 1), torch.cat((*at, asked), 1)
    mask, first = torch.ones(x.shape[1], x.shape[1]).tril(x.shape[1] * full).bool(), x.shape[1] - asked.shape[1]
    states = []
    for block in model.blocks:
        x = layer(block, x, lambda h, b=block: self_attention(b.attn, h, at, mask, model))
        states.append(x)
    logits = rms_norm(x, model.norm) @ model.head.weight.T
    return Reading([s[:, first - 1] for s in states], [s[:, first:] for s in states], logits[:, first:])


def arpg(model, label, tokens, places, asked, within_step, steps, full, bare, condition):
    """class, x, x, x in the first half; the second half asks its keys and values, each position by itself."""
    x = model.embedding(torch.cat((model.vocab_size + 1 + label[:, None], tokens), 1))
    at = torch.cat((torch.full_like(label, -1)[:, None], places), 1)
    mask = torch.ones(x.shape[1], x.shape[1]).tril(x.shape[1] * full).bool()
    if within_step == "group":
        group = torch.tensor([-1, *steps])
        mask |= (group[:, None] == group) & (group[:, None] > 0)
    token, query = [], []
    for block in model.blocks:
        x = layer(block, x, lambda h, b=block: self_attention(b.attn, h, at, mask, model))
        token.append(x[:, -1])
    k, v = (rms_norm(x, model.kv_norm) @ model.kv.weight.T).unflatten(-1, (2, model.num_heads, -1)).unbind(2)
    k, mask = turn(k, at, model), torch.ones(asked.shape[1], x.shape[1]).bool()
    y = model.embedding.weight[model.vocab_size]
    if isinstance(model, PositionedARPG):
        y = turn(y.view(1, 1, model.num_heads, -1), asked, model).flatten(2)
    y = y + there(condition, asked)
    for block in model.cross_blocks:

        def ask(h, attn=block.attn):
            q = turn((h @ attn.q.weight.T).unflatten(-1, (model.num_heads, -1)), asked, model)
            return attention(q, k, v, mask) @ attn.proj.weight.T

        y = layer(block, y, ask)
        query.append(y)
    return Reading(token, query, rms_norm(y, model.norm) @ model.head.weight.T)


def lpd(model, label, tokens, places, asked, within_step, steps, full, bare, condition):
    """class, x, x, ..., x, then one query for each position; contents never see one."""
    read, among = tokens.shape[1] + 1, within_step == "group"
    x = torch.cat((model.label_embedding(label)[:, None], model.token_embedding(tokens)), 1)
    x = torch.cat((x, model.mask_token.expand(len(x), asked.shape[1], -1)), 1)
    at = torch.cat((torch.full_like(label, -1)[:, None], places, asked), 1)
    x = layer_norm(x + model.position_embedding[0][at + 1], model.input_norm)
    x = torch.cat((x[:, :read], x[:, read:] + there(condition, asked)), 1)
    mask = torch.zeros(x.shape[1], x.shape[1]).bool()
    mask[:, :read] = True
    mask[:read, :read] = torch.ones(read, read).tril(read * full).bool()
    if among:
        group = torch.tensor([-1, *steps])
        mask[:read, :read] |= (group[:, None] == group) & (group[:, None] > 0)
    mask[read:, read:] = (
        torch.ones(asked.shape[1], asked.shape[1]).bool() if among else torch.eye(asked.shape[1]).bool()
    )
    states = []
    for block in model.blocks:
        x = x + biased_attention(block.attn, layer_norm(x, block.norm1), mask, model)
        x = x + mlp(block.mlp, layer_norm(x, block.norm2))
        states.append(x)
    logits = layer_norm(x, model.norm) @ model.head.weight.T
    return Reading([s[:, read - 1] for s in states], [s[:, read:] for s in states], logits[:, read:])


def rar(model, label, tokens, places, asked, within_step, steps, full, bare, condition):
    """cls, class, x, x, ..., x, each told the next position; the last of them, told the one asked for, predicts."""
    assert within_step == "causal"
    count, embedded = tokens.shape[1], model.embedding(model.vocab_size + 1 + label)
    following = torch.cat((places, asked), 1)[:, : count + 1]
    first = model.cls_token[0] + model.position_embedding[0][:1]
    x = [first.expand(len(label), -1), embedded + model.position_embedding[0][1]]
    x += [model.embedding(tokens[:, i]) + model.position_embedding[0][2 + places[:, i]] for i in range(count)]
    for i in range(following.shape[1]):
        x[1 + i] = x[1 + i] + model.target_embedding[0][2 + following[:, i]]
    x = torch.stack(x, 1)
    # a second reading of the image has the places of the first
    place = [0, 1, *(2 + i % model.num_tokens for i in range(count))]
    signal = nn.functional.silu(embedded[:, None] + model.step_embedding[0][place])
    mask, token = torch.ones(x.shape[1], x.shape[1]).tril(x.shape[1] * full).bool(), []
    for block in model.blocks:
        change = signal @ block.modulation.weight.T + block.modulation.bias
        shift, scale, gate, shift2, scale2, gate2 = change.unflatten(-1, (6, -1)).unbind(-2)
        h = layer_norm(x, block.norm1) * (1 + scale) + shift
        x = x + gate * biased_attention(block.attn, h, mask, model)
        x = x + gate2 * mlp(block.mlp, layer_norm(x, block.norm2) * (1 + scale2) + shift2)
        token.append(x[:, -1])
    scale, shift = (signal @ model.modulation.weight.T + model.modulation.bias).unflatten(-1, (2, -1)).unbind(-2)
    x = layer_norm(x, model.norm) * (1 + scale) + shift
    return Reading(token, [], x[:, -1:] @ model.head.weight.T + model.head.bias)


NAIVE = {"RandAR": randar, "ARPG": arpg, "PositionedARPG": arpg, "LlamaGen": llamagen, "LPD": lpd, "RAR": rar}

# the parts; heads come after positions here: (B, L, H, E) ---------------------------------------------------


def rms_norm(x: Tensor, norm: nn.RMSNorm) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight


def layer_norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    x = x - x.mean(-1, keepdim=True)
    x = x / (x.square().mean(-1, keepdim=True) + norm.eps).sqrt()
    return x if norm.weight is None else x * norm.weight + norm.bias


def mlp(part: nn.Module, x: Tensor) -> Tensor:
    h = x @ part.fc1.weight.T + part.fc1.bias
    return (h * (1 + (h / math.sqrt(2)).erf()) / 2) @ part.fc2.weight.T + part.fc2.bias


def biased_attention(attn: nn.Module, x: Tensor, mask: Tensor, model: Generator) -> Tensor:
    q, k, v = (x @ attn.qkv.weight.T + attn.qkv.bias).unflatten(-1, (3, model.num_heads, -1)).unbind(2)
    if attn.q_norm is not None:
        q, k = layer_norm(q, attn.q_norm), layer_norm(k, attn.k_norm)
    return attention(q, k, v, mask) @ attn.proj.weight.T + attn.proj.bias


def turn(x: Tensor, at: Tensor, model: Generator) -> Tensor:
    """2-D rotary embedding by 2 x 2 rotations of adjacent channels; what stands at -1 (the class) is 0."""
    half = x.shape[-1] // 2
    frequencies = model.rope_base ** (-torch.arange(0, half, 2).double() / half)
    row, col = at // model.grid[1], at % model.grid[1]
    angles = torch.cat((row[..., None] * frequencies, col[..., None] * frequencies), -1)[:, :, None]
    there = (at >= 0)[:, :, None, None]
    cos, sin, a, b = angles.cos() * there, angles.sin() * there, x[..., 0::2], x[..., 1::2]
    return torch.stack((a * cos - b * sin, b * cos + a * sin), -1).flatten(-2)


def there(condition: Tensor | None, at: Tensor) -> Tensor:
    """Return a condition (B, N, D) at positions (B, n): (B, n, D)."""
    if condition is None:
        return torch.zeros(*at.shape, 1).double()
    return condition.double()[torch.arange(len(at))[:, None], at]


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """mask: (L, S), True = seen. Several query heads may share a key-value head. Returns (B, L, H * E)."""
    k, v = (x.repeat_interleave(q.shape[2] // k.shape[2], 2) for x in (k, v))
    scores = torch.einsum("blhe,bshe->bhls", q, k) / math.sqrt(q.shape[-1])
    weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
    return torch.einsum("bhls,bshe->blhe", weights, v).flatten(2)


def self_attention(attn: nn.Module, x: Tensor, at: Tensor, mask: Tensor, model: Generator) -> Tensor:
    heads = [model.num_heads, model.num_kv_heads, model.num_kv_heads]
    q, k, v = (x @ attn.qkv.weight.T).unflatten(-1, (sum(heads), -1)).split(heads, 2)
    return attention(turn(q, at, model), turn(k, at, model), v, mask) @ attn.proj.weight.T


def layer(block: nn.Module, x: Tensor, attend) -> Tensor:
    x = x + attend(rms_norm(x, block.norm1))
    h = rms_norm(x, block.norm2)
    return x + (nn.functional.silu(h @ block.mlp.w1.weight.T) * (h @ block.mlp.w3.weight.T)) @ block.mlp.w2.weight.T
