"""Features of tokens in each context, and the tokenizer, beside the official forward pass and a ViT of timm."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import official
from benchmarks.cases import Case, Make, Setting
from benchmarks.jobs.tokenizer import frozen
from benchmarks.networks import fresh, keywords, prepacked, tokens_of
from randfeat import FeatureSpec
from randfeat.inference import readout
from randfeat.models import orders

CONTEXTS = ("causal", "full", "echo", "after", "bare")  # ARPG has no `bare`


def reader(name: str, size: str, dtype: str, images: int, spec: str) -> Callable[[], Tensor]:
    """Return the call that extracts features by a spec with the inference copy."""
    network = prepacked(name, size, dtype)
    tokens = tokens_of(network, images)
    return lambda: readout.read(network, tokens, [FeatureSpec.parse(spec)])[0]


def official_forward(theirs: nn.Module, tokens: Tensor, order: Tensor, classes: int) -> Callable[[], Any]:
    null = torch.full((len(tokens),), classes)
    if hasattr(theirs, "remove_caches"):  # RandAR
        theirs.grad_checkpointing = False  # which only costs time here
        return torch.no_grad()(lambda: theirs(tokens, null, order, targets=tokens))
    return torch.no_grad()(lambda: theirs(tokens, null.clone()))  # it draws an order of its own


def by_official(name: str, setting: Setting, dtype: str, images: int) -> tuple[nn.Module, Callable[[], Any], Tensor]:
    """Return the official network, its forward pass of a random order and that order."""
    model = fresh(name, setting.size, dtype)
    tokens, classes = tokens_of(model, images), model.num_classes
    order = readout.pass_order(FeatureSpec("random").passes[0], model, tokens).contiguous()
    theirs = official.build(model, setting.peers[name])
    return theirs, official_forward(theirs, tokens, order, classes), order


def differences(setting: Setting, dtype: str, images: int, layers: tuple[int, ...]) -> Mapping[str, Any]:
    """Return how far RandAR's features are from the outputs of the official blocks, of their largest value."""
    theirs, forward, order = by_official("randar", setting, dtype, images)
    blocks: Any = theirs.layers
    seen: dict[int, Tensor] = {}
    for layer in layers:
        blocks[layer - 1].register_forward_hook(lambda _m, _i, out, layer=layer: seen.update({layer: out}))
    forward()
    apart = []
    for layer in layers:
        ours = reader("randar", setting.size, dtype, images, f"random/causal/token/L{layer}/none/mean")()
        state = orders.scatter(seen[layer][:, 2::2], order)
        apart.append(float((ours.flatten(2).transpose(1, 2) - state).abs().max() / state.abs().max()))
    return {"largest difference from the official states, of their largest": max(apart)}


def vit(size: str, dtype: str, images: int) -> Callable[[], Tensor]:
    """Return a forward pass of a ViT of timm with as many blocks and the same width."""
    from timm.models.vision_transformer import VisionTransformer

    own = keywords("randar", size)
    patch, side = 16, own["grid"][0]
    made = VisionTransformer(patch * side, patch, 3, 0, "", own["embed_dim"], own["depth"], own["num_heads"])
    pixels = torch.randn(images, 3, patch * side, patch * side).to(getattr(torch, dtype))
    return torch.no_grad()(partial(made.to(pixels.dtype).eval().forward_features, pixels))


def extraction(setting: Setting) -> Iterator[Case]:
    """Yield depths of the dense token stream beside the official forward, then contexts, orders and pictures."""
    size, images = setting.size, setting.pick(2, 4, 4)
    for dtype in setting.dtypes:
        for name in ("randar", "arpg"):
            depth = keywords(name, size)["depth"]
            peers: dict[str, Make] = {"timm ViT": partial(vit, size, dtype, images)}
            if name in setting.peers:
                peers["official"] = lambda name=name, dtype=dtype: by_official(name, setting, dtype, images)[1]
            read = partial(partial, reader, name, size, dtype, images)
            label = f"{name} {size} {dtype}, {images} images"
            compared = name == "randar" and name in setting.peers
            facts = partial(differences, setting, dtype, images, (depth // 2, depth)) if compared else dict
            for layer in (depth, depth // 2):
                yield Case(
                    f"{label}, token stream to layer {layer} of {depth}",
                    read(f"random/causal/token/L{layer}/none/mean"),
                    peers,
                    images,
                    dtype=dtype,
                    facts=facts if layer == depth else dict,
                )
            spec = f"causal/token/L{depth // 2}/mean/mean"
            several = {"four orders, in one": f"random*4/{spec}", "both directions, in one": f"bidirectional/{spec}"}
            yield Case(f"{label}, one order", read(f"random/{spec}"), {k: read(v) for k, v in several.items()}, images)
            yield from _contexts(label, read, name, depth // 2, images, dtype)
        yield _pictures(setting, dtype)


def _contexts(
    label: str, read: Callable[[str], Make], name: str, layer: int, images: int, dtype: str
) -> Iterator[Case]:
    """Yield each context and stream beside one causal pass of the same stream."""
    for stream in ("token", "query"):
        for context in CONTEXTS[1:] if name == "randar" else CONTEXTS[1:-1]:
            if (stream, context) in (("token", "after"), ("token", "bare")):
                continue  # states of queries alone
            one, causal = (read(f"raster/{each}/{stream}/L{layer}/mean/mean") for each in (context, "causal"))
            yield Case(f"{label}, {context}, {stream}", one, {"causal": causal}, images, dtype=dtype)


def _pictures(setting: Setting, dtype: str) -> Case:
    """Return the tokenizer beside the reading of its tokens: how much of an extraction of pictures it takes."""
    side = 16 * keywords("randar", setting.size)["grid"][0]

    def encode() -> Callable[[], Tensor]:
        made, pixels = frozen(setting), torch.rand(1, 3, side, side)
        return torch.no_grad()(lambda: made.encode(pixels))

    spec = "raster/full/query/L-1/mean/mean"
    label = f"randar {setting.size} {dtype}, the default spec of one image"
    read = partial(reader, "randar", setting.size, dtype, 1, spec)
    return Case(label, read, {"its tokenizer, float32": encode}, dtype=dtype)
