"""Classification by likelihood beside a call for each class, and a batch that shares all that classes can share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.cases import Case, Setting
from benchmarks.networks import fresh, prepacked, tokens_of
from randfeat.inference import likelihood
from randfeat.inference.successive_halving import rank_classes
from randfeat.models import RandAR, orders, packed
from randfeat.models.layers import attend, rope_at, rotate


def classification(setting: Setting) -> Iterator[Case]:
    """Yield all classes in one order, by numbers of images, and successive halving of 20 orders."""
    size, classes = setting.size, setting.pick(4, 10, 10)
    for dtype in setting.dtypes:
        for images in setting.pick((2,), (1,), (1, 8)):
            sides = {
                "a call for each class": partial(one_by_one, size, dtype, images, classes),
                "the first block shared": partial(by_sharing, size, dtype, images, classes),
            }
            yield Case(
                f"randar {size} {dtype}, {images} images, {classes} classes",
                partial(by_us, size, dtype, images, classes),
                sides,
                images,
                dtype=dtype,
                facts=partial(differences, size, dtype, images, classes),
            )
        for name in setting.pick(("randar",), ("randar",), ("randar", "arpg")):
            count = setting.pick(2, 2, 20)
            yield Case(
                f"{name} {size} {dtype}, successive halving, {classes} classes, {count} orders",
                partial(by_halving, name, size, dtype, classes, count),
                {"all passes": partial(by_all, name, size, dtype, classes, count)},
                dtype=dtype,
            )


def network_of(size: str, dtype: str, classes: int, prepack: bool = True) -> RandAR:
    made: Any = fresh("randar", size, dtype, num_classes=classes)
    return packed.inference_copy(made) if prepack else made


def by_us(size: str, dtype: str, images: int, classes: int) -> Callable[[], Tensor]:
    network = network_of(size, dtype, classes)
    return partial(likelihood.class_log_prob, network, tokens_of(network, images))


def log_prob(logits: Tensor, tokens: Tensor, order: Tensor) -> Tensor:
    """Return log p of images (B,), given the logits of their tokens in order space."""
    right = orders.gather(tokens, order).unsqueeze(-1)
    return logits.float().log_softmax(-1).gather(-1, right).sum((1, 2))


def one_by_one(size: str, dtype: str, images: int, classes: int) -> Callable[[], Tensor]:
    network = network_of(size, dtype, classes)
    tokens, order = tokens_of(network, images), likelihood.orders_of(network, 1).expand(images, -1)

    @torch.no_grad()
    def call() -> Tensor:
        labels = [torch.full((images,), label) for label in range(classes)]
        return torch.stack([log_prob(network(tokens, label, order), tokens, order) for label in labels], 1)

    return call


def by_sharing(size: str, dtype: str, images: int, classes: int) -> Callable[[], Tensor]:
    network = network_of(size, dtype, classes, prepack=False)
    tokens, order = tokens_of(network, images), likelihood.orders_of(network, 1).expand(images, -1)

    def call() -> Tensor:
        logits = shared_forward(network, tokens, order)
        return torch.stack([log_prob(logits[:, label], tokens, order) for label in range(classes)], 1)

    return call


def differences(size: str, dtype: str, images: int, classes: int) -> Mapping[str, Any]:
    expected = one_by_one(size, dtype, images, classes)()
    makes = {"ours": by_us, "the first block shared": by_sharing}
    found = {name: make(size, dtype, images, classes)().view_as(expected) for name, make in makes.items()}
    return {f"largest difference of log p, {name}": float((one - expected).abs().max()) for name, one in found.items()}


def by_halving(name: str, size: str, dtype: str, classes: int, count: int) -> Callable[[], Any]:
    network = prepacked(name, size, dtype)
    return partial(rank_classes, network, tokens_of(network, 1), range(classes), count)


def by_all(name: str, size: str, dtype: str, classes: int, count: int) -> Callable[[], Tensor]:
    network = prepacked(name, size, dtype)
    return partial(likelihood.class_log_prob, network, tokens_of(network, 1), range(classes), count)


@torch.no_grad()
def shared_forward(model: RandAR, tokens: Tensor, order: Tensor) -> Tensor:
    """Return the logits (B, C, N, V) of every class, with all computations shared that can be shared exactly.

    These are the inputs and, since the class token's key is zero and only its value depends on the class, the first
    block's queries, keys and attention weights.
    """
    table, batch, classes = model.rope(tokens.device), len(tokens), model.num_classes
    read = orders.gather(tokens, order)
    x, places = model._sequence(model._instructions(table), torch.zeros(batch, dtype=torch.int64), read, order)
    x, rope = x[:, :-1], rope_at(table, places[:, :-1])
    prefix, block = model.label_embedding.weight[:classes], model.blocks[0]
    attention, normed = block.attn, block.norm1(x)
    heads = (attention.num_heads + attention.num_kv_heads, attention.num_kv_heads)
    qk, v = attention.qkv(normed).unflatten(-1, (sum(heads), -1)).transpose(1, 2).split(heads, 1)
    q, k = rotate(qk, rope).split((attention.num_heads, attention.num_kv_heads), 1)
    first = torch.zeros_like(v)  # a second value, one at the class token: its share of the output
    first[:, :, 0] = 1
    without = v.clone()
    without[:, :, 0] = 0
    mixed, weight = attend(q, k, without, causal=True), attend(q, k, first, causal=True)[..., :1]
    own = attention.qkv(block.norm1(prefix)).unflatten(-1, (sum(heads), -1))[:, heads[0] :]  # (C, K, E)
    own = own.repeat_interleave(attention.num_heads // attention.num_kv_heads, 1)
    put = attention.proj(mixed.transpose(1, 2).flatten(-2)).unsqueeze(1)
    of_class = (weight.unsqueeze(1) * own[None, :, :, None]).transpose(2, 3).flatten(-2)
    start = x.unsqueeze(1).repeat(1, classes, 1, 1)
    start[:, :, 0] = prefix
    y = (start + put + attention.proj(of_class)).flatten(0, 1)
    y = y + block.mlp(block.norm2(y))
    for later in model.blocks[1:]:
        y = later(y, rope.repeat_interleave(classes, 0), causal=True)
    return model.head(model.norm(y[:, 1::2])).unflatten(0, (batch, classes))
