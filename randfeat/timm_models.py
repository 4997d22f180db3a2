"""randfeat's models as models of timm: importing this module registers them with timm.

    import timm, randfeat.timm_models
    model = timm.create_model("randar_l.llamagen_in1k", pretrained=True, num_classes=10, layer=0.5)
    model = timm.create_model("randfeat", source="digits_demo/models/randar", num_classes=10)

A name is a published size and a tag: the tokenizer where a size has several, the data, the pixels where not 256.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model, resolve_pretrained_cfg
from torch import Tensor, nn

from . import models, tokenizers
from .inference import readout
from .inference.readout import FeatureSpec, Merge
from .models import Context, Generator, Stream, orders
from .models.layers import Block
from .pipeline.pipeline import Pipeline, load
from .tokenizers import Tokenizer
from .utils.checks import check_whole_number
from .weights import published
from .weights.published import PublishedModel

__all__ = ["Backbone", "wrap"]

POOLS: dict[str, Callable[[Tensor], Tensor]] = {  # by timm's names, of (B, N, D)
    "avg": lambda x: x.mean(1),
    "max": lambda x: x.amax(1),
    "": lambda x: x,
}


class Backbone(nn.Module):
    """Tokenizer, generator and classifier with the interface of timm's models.

    Images are (B, channels, h, w) in [0, 1], as timm's transforms make them with the mean 0 and the std 1 of
    `pretrained_cfg`; values of a tokenizer with a range are scaled to [0, 1] by the user. Both modules given become its
    own: the tokenizer is frozen, for tokens have no gradient, and the generator is cut behind the layer of the feature.
    In training gradients and dropout are those of the generator.

    orders, context, stream, layer, merge: of the feature, as in `FeatureSpec`; `merge` is of the passes. num_classes: 0
    is no classifier, which otherwise is a LayerNorm and a linear layer. global_pool: "avg", "max" or "" (none).
    drop_rate: of dropout before the linear layer. in_chans, img_size: timm's arguments; refused where tokenizer or grid
    differ.

    With global_pool "avg", `forward_head(forward_features(x), pre_logits=True)` is what `Pipeline.features` reads with
    pool `mean`. Half precision is autocast, which spares the tokenizer: it would choose other tokens.
    """

    num_prefix_tokens = 0

    def __init__(
        self,
        tokenizer: Tokenizer,
        generator: Generator,
        num_classes: int = 0,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        orders: str = "raster",
        context: Context = "causal",
        stream: Stream = "token",
        layer: int | float = 0.5,
        merge: Merge = "mean",
        in_chans: int | None = None,
        img_size: int | Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.spec = readout.check(generator, FeatureSpec(orders, context, stream, (layer,), "none", merge))
        h, w = _input_size(tokenizer, generator)[1:]
        if in_chans not in (None, tokenizer.channels):
            raise ValueError(f"the model reads {tokenizer.channels} channels, got in_chans={in_chans}: leave it out")
        if img_size is not None and (h, w) != ((img_size, img_size) if isinstance(img_size, int) else (*img_size,)):
            raise ValueError(f"the model reads {h} x {w} pixels, got img_size={img_size}: leave it out")
        self.tokenizer = tokenizer.requires_grad_(False)
        self.generator = generator
        self.grad_checkpointing = False
        copies = len(self.spec.passes) if merge == "concat" else 1
        self.num_features = self.head_hidden_size = self.embed_dim = generator.embed_dim * copies
        self._cut(int(self.spec.layers[0]))
        self.head_drop = nn.Dropout(drop_rate)
        self.reset_classifier(num_classes, global_pool)

    def _cut(self, depth: int) -> None:
        """Remove all of the generator that features of block `depth` do not need."""
        kept: Any = self.generator
        in_second_half = self.spec.stream == "query" and hasattr(kept, "cross_blocks")
        blocks = "cross_blocks" if in_second_half else "blocks"
        for name in ("norm", "modulation", "head", *(() if in_second_half else ("kv_norm", "kv", "cross_blocks"))):
            kept._modules.pop(name, None)
        if self.spec.stream == "token":
            kept._parameters.pop("mask_token", None)
        setattr(kept, blocks, getattr(kept, blocks)[:depth])
        self.depth = depth
        self.feature_info = [
            dict(num_chs=self.num_features, reduction=self.tokenizer.stride, module=f"generator.{blocks}.{i}")
            for i in range(depth)
        ]

    # from images to features -----------------------------------------------------------------------------------

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, num_classes) of images (B, channels, H, W) in [0, 1]."""
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """Return states (B, N, D) of images by raster position, after the last block; no norm follows."""
        return self._states(x, [self.depth])[0]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return logits of states (B, N, D), or with `pre_logits` the input of the classifier, (B, D)."""
        pooled = POOLS[self.global_pool](x)
        return pooled if pre_logits else self.head(self.head_drop(self.fc_norm(pooled)))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Return states after several blocks, the shallowest first, unless `intermediates_only` behind the result of
        `forward_features`.

        indices: the last so many, or numbers of blocks from 0, or negative ones from the end; None is all. norm: the
        root-mean-square norm without gains, which belong to the generator's last layer. output_fmt: "NCHW", (B, D, h,
        w), or "NLC", (B, N, D). stop_early: nothing deeper than the last of `indices` runs, and the first value
        returned is its states. There are no prefix tokens.
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise ValueError(f"output_fmt must be NCHW or NLC, got {output_fmt!r}")
        taken = _taken(indices, self.depth)
        last = max(taken) + 1 if stop_early or intermediates_only else self.depth
        wanted = sorted({i + 1 for i in taken})
        *states, final = self._states(x, [*wanted, last])
        if norm:
            states = [F.rms_norm(state, (state.shape[-1],), eps=self.generator.norm_eps) for state in states]
        if output_fmt == "NCHW":
            states = [state.mT.unflatten(2, self.generator.grid).contiguous() for state in states]
        return states if intermediates_only else (final, states)

    def get_intermediate_layers(
        self,
        x: Tensor,
        n: int | list[int] = 1,
        reshape: bool = False,
        return_prefix_tokens: bool = False,
        norm: bool = False,
    ) -> list[Tensor]:
        """Return states as DINO's models do: of the last n blocks, or of those with numbers n, from 0."""
        output_fmt = "NCHW" if reshape else "NLC"
        states = self.forward_intermediates(x, n, norm=norm, output_fmt=output_fmt, intermediates_only=True)
        assert isinstance(states, list)
        return states

    def _states(self, x: Tensor, layers: list[int]) -> list[Tensor]:
        """Return for each layer the states (B, N, D) of images, passes merged."""
        if not _recording() and not len(x):
            self._check(x)
            return [x.new_empty(0, self.generator.num_tokens, self.num_features) for _ in layers]
        with warnings.catch_warnings():
            if torch.jit.is_tracing():
                if any(one.per_image for one in self.spec.passes):  # torch fails at the arithmetic of 64 bits
                    raise ValueError("torch.jit.trace cannot record orders of each image's own: use torch.export")
                warnings.simplefilter("ignore", torch.jit.TracerWarning)  # shapes that only the model decides
            return self._states_of_tokens(self._tokens(x), layers)

    def _states_of_tokens(self, tokens: Tensor, layers: list[int]) -> list[Tensor]:
        """Return for each layer the states (B, N, D) of tokens (B, N), passes merged."""
        generator, passes, reading = self.generator, self.spec.passes, (self.spec.context, self.spec.stream)
        order = torch.cat([readout.pass_order(one, generator, tokens) for one in passes])
        tokens = tokens.repeat(len(passes), 1)
        if _recording():  # neither the check of orders nor the cut into parts, which depend on values and batch
            null = torch.full((1,), generator.num_classes, device=tokens.device).expand(tokens.shape[0])
            found = generator.states(tokens, null, order, layers, *reading)
            states = [orders.scatter(state, order) for state in found]
        else:
            states = generator.hidden(tokens, None, order, layers, *reading)
        each = [state.unflatten(0, (len(passes), -1)) for state in states]
        return [state.mean(0) if self.spec.merge == "mean" else torch.cat(state.unbind(0), -1) for state in each]

    @torch.no_grad()
    def _tokens(self, x: Tensor) -> Tensor:
        self._check(x)
        with torch.autocast(x.device.type, enabled=False):
            return self.tokenizer.encode(x.float()).flatten(1)

    def _check(self, x: Tensor) -> None:
        """Raise a ValueError unless images have the model's shape and finite values, which a recording cannot see."""
        expected = _input_size(self.tokenizer, self.generator)
        if x.shape[1:] != expected:
            raise ValueError(f"expected images (B, {', '.join(map(str, expected))}), got {tuple(x.shape)}")
        if not x.is_floating_point():
            raise ValueError(f"expected floating-point images in [0, 1], got {x.dtype}: divide by 255")
        if any(value.dtype != torch.float32 for value in self.tokenizer.state_dict().values()):
            raise ValueError("the tokenizer would choose other tokens in half precision: use autocast instead")
        if not _recording() and not torch.compiler.is_compiling() and not x.is_meta and not x.isfinite().all():
            raise ValueError("images hold NaN or infinity: expected numbers in [0, 1]")

    # what timm's tools ask for ---------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Backbone:
        super().train(mode)
        self.tokenizer.eval()
        return self

    def get_classifier(self) -> nn.Module:
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Make a fresh classifier of so many classes, or none for 0."""
        if global_pool is not None:
            if global_pool not in POOLS:
                raise ValueError(f"global_pool must be one of {', '.join(map(repr, POOLS))}, got {global_pool!r}")
            self.global_pool = global_pool
        check_whole_number("num_classes", num_classes, 0)
        self.num_classes = num_classes
        self.fc_norm: nn.Module = nn.Identity()
        self.head: nn.Module = nn.Identity()
        if num_classes:
            place: Any = {"device": self.generator.device, "dtype": self.generator.dtype}
            self.fc_norm = nn.LayerNorm(self.num_features, **place)
            self.head = nn.Linear(self.num_features, num_classes, **place)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove the blocks below the deepest of `indices`, and the classifier. Returns the indices from 0.

        prune_norm: the norm of `forward_intermediates` has no parameters, so it stays.
        """
        taken = _taken(indices, self.depth)
        self._cut(max(taken) + 1)
        if prune_head:
            self.reset_classifier(0, "")
        return taken

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Let blocks compute their activations again in the backward pass instead of keeping them."""
        self.grad_checkpointing = enable
        for module in self.generator.modules():
            if isinstance(module, Block):
                module.checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Return the lookup tables: decay would shrink the rows of tokens that do not occur in a data set."""
        tables = ("embedding.weight", "instruction", "mask_token", "cls_token", "_embedding")
        return {name for name, _ in self.named_parameters() if name.endswith(tables)}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return timm's groups of layers: the stem, then block after block, both halves of ARPG in turn."""
        return {
            "stem": r"^tokenizer|^generator\.(?!blocks|cross_blocks|kv)",
            "blocks": r"^generator\.blocks\.(\d+)",
            "middle": r"^generator\.kv",
            "cross_blocks": r"^generator\.cross_blocks\.(\d+)",  # the classifier matches nothing and comes last
        }


def _recording() -> bool:
    """Return whether torch records the model as a program, by `torch.export` or `torch.jit.trace`."""
    return torch.jit.is_tracing() or torch.compiler.is_exporting()


def _input_size(tokenizer: Tokenizer, generator: Generator) -> tuple[int, int, int]:
    """Return channels, height and width of the images."""
    h, w = generator.grid
    return tokenizer.channels, h * tokenizer.stride, w * tokenizer.stride


def _taken(indices: int | Sequence[int] | None, depth: int) -> list[int]:
    """Return numbers of blocks from 0: the last so many, those named (negative ones from the end), or for None all."""
    if isinstance(indices, int):
        indices = range(depth - indices, depth)
    taken = [*range(depth)] if indices is None else [i + depth if i < 0 else i for i in indices]
    if not taken or not 0 <= min(taken) <= max(taken) < depth:
        raise ValueError(f"blocks are numbered 0 to {depth - 1}, and one at least is read, got indices={indices}")
    return taken


# how timm finds them -----------------------------------------------------------------------------------------


def wrap(model: Pipeline, **keywords: Any) -> nn.Module:
    """Return a pipeline as a model of timm, a `Backbone` on a copy of its weights.

    keywords: those of `Backbone`, and timm's `features_only` (which wraps the backbone) and `out_indices`.
    """
    return _wrapped(copy.deepcopy(model), keywords)


def randfeat(pretrained: bool = False, *, source: str | Path | None = None, **keywords: Any) -> nn.Module:
    """Return the model in `source`, as `wrap(load(source))`: timm's entry point of models without a published size."""
    if source is None:
        raise ValueError('say which model, timm.create_model("randfeat", source=...), as randfeat.load takes it')
    for name in (
        "pretrained_cfg",
        "pretrained_cfg_overlay",
    ):  # timm passes those of the name, which say nothing of the source
        keywords.pop(name, None)
    return _wrapped(load(source), keywords)


def _wrapped(model: Pipeline, keywords: dict[str, Any]) -> nn.Module:
    config = _config(*_input_size(model.tokenizer, model.generator), architecture="randfeat")
    return _build("randfeat", config, model, keywords)


def _tag(row: PublishedModel) -> str:
    """Return timm's tag of a model: the tokenizer where a size has several, the data, the pixels where not 256."""
    codes = row.name.removeprefix(row.size.replace("_", "-")).strip("-")
    pixels = _pixels(row)
    return "_".join([*([codes] if codes.isalpha() else []), "in1k", *([str(pixels)] if pixels != 256 else [])])


def _pixels(row: PublishedModel) -> int:
    return row.grid[0] * 2 ** (len(row.tokenizer.config["multipliers"]) - 1)


ROWS = {f"{row.size}.{_tag(row)}": row for row in published.MODELS.values()}


def _config(channels: int, height: int, width: int, **more: Any) -> dict[str, Any]:
    """Return timm's configuration of a model: images in [0, 1], as tokenizers take them, and no classifier."""
    return dict(
        input_size=(channels, height, width),
        fixed_input_size=True,
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
        interpolation="bicubic",
        crop_pct=1.0,
        num_classes=0,
        classifier="head",
        **more,
    )


default_cfgs = generate_default_cfgs(
    {
        name: _config(3, _pixels(row), _pixels(row), hf_hub_id=row.repository, hf_hub_filename=row.file)
        for name, row in ROWS.items()
    }
)


def _published(size: str) -> Callable[..., nn.Module]:
    """Return timm's entry point of a published size: its weights by `load`, or fresh ones."""

    def entry(
        pretrained: bool = False, pretrained_cfg: Any = None, pretrained_cfg_overlay: Any = None, **keywords: Any
    ) -> nn.Module:
        config = resolve_pretrained_cfg(size, pretrained_cfg, pretrained_cfg_overlay)
        row = ROWS[f"{size}.{config.tag}"]
        return _build(size, config, load(row.name) if pretrained else _fresh(row), keywords)

    entry.__name__ = entry.__qualname__ = size
    return entry


def _fresh(row: PublishedModel) -> Pipeline:
    tokenizer = tokenizers.create(row.tokenizer.model, **row.tokenizer.config)
    size = dict(grid=row.grid, vocab_size=tokenizer.vocab_size, num_classes=published.NUM_CLASSES)
    return Pipeline(tokenizer, models.create(row.size, **size))


def _build(name: str, config: Any, pipeline: Pipeline, keywords: dict[str, Any]) -> nn.Module:
    if keywords.pop("cache_dir", None) is not None:
        raise ValueError("weights lie in the cache of huggingface_hub: set HF_HOME instead of cache_dir")
    features_config = dict(out_indices=keywords.pop("out_indices", 3), feature_cls="getter")
    make = partial(Backbone, pipeline.tokenizer, pipeline.generator)
    return build_model_with_cfg(
        make, name, pretrained=False, pretrained_cfg=config, feature_cfg=features_config, **keywords
    )


for _size in dict.fromkeys(row.size for row in ROWS.values()):
    globals()[_size] = register_model(_published(_size))
register_model(randfeat)
