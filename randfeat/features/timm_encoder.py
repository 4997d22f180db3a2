"""Models of timm as encoders."""

from __future__ import annotations

import difflib
import inspect
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from timm.models import FeatureInfo
from torch import Tensor

from .. import weights
from ..data.decode import MODES, as_seen
from ..inference.readout import FeatureSpec, Merge, merge_shifts, sub_patch_shifts
from ..utils import devices
from ..weights import hub
from .encoder import TIMM, Encoder

GRAMMAR = "pooled[/shifts], or layers/pool[/merge][/shifts] such as L6/mean, L-1/cls/shifts2 or L6,L12/grid2/concat"
_LAYERS = re.compile(r"L(-?\d+|0\.\d+)(,L(-?\d+|0\.\d+))*")
_POOL = re.compile(r"mean|max|cls|none|grid[1-9]\d*")
_SHIFTS = re.compile(r"shifts[1-9]\d{0,3}")


@dataclass(frozen=True)
class TimmSpec:
    """Feature spec of a model of timm: `pooled[/shifts]`, or `layers/pool[/merge][/shifts]` with the terms of
    `FeatureSpec`.

    layers: none for `pooled`, the input of the model's own classifier; else blocks (of a convolutional network:
        stages), numbered from 1, from the end or as a share of the depth. Lk is the k-th entry of the model's
        `forward_intermediates`, before the final norm.
    pool: of a layer's map: `mean`, `max`, `gridG`, `none`, or `cls` for its class token.
    merge: of several layers: `mean` or `concat`.
    shifts: sub-patch shifts a side, by equal parts of the deepest of these layers' stride; vectors are averaged, and
        maps become so many times finer.
    """

    layers: tuple[int | float, ...] = ()
    pool: str = "mean"
    merge: Merge = "mean"
    shifts: int = 1

    @classmethod
    def parse(cls, text: str | TimmSpec) -> TimmSpec:
        """Parse the grammar. Raises a ValueError that says what is wrong."""
        if isinstance(text, TimmSpec):
            return text
        layers, *parts = text.strip().split("/")
        said = parts.pop() if parts and parts[-1].startswith("shifts") else "shifts1"
        if not _SHIFTS.fullmatch(said):
            raise ValueError(f"spec {text!r}: shifts are written shifts2, and counted from 1, as the picture stands")
        shifts = int(said.removeprefix("shifts"))
        if (layers, parts) == ("pooled", []):
            return cls(shifts=shifts)
        merge = parts[1] if len(parts) == 2 else "mean"
        if len(parts) not in (1, 2) or not _LAYERS.fullmatch(layers):
            raise ValueError(f"spec {text!r} is none for a model of timm: expected {GRAMMAR}")
        if not _POOL.fullmatch(parts[0]):
            raise ValueError(f"spec {text!r}: pool {parts[0]!r} is none of mean, max, cls, none, gridG (such as grid2)")
        if merge not in get_args(Merge):
            raise ValueError(f"spec {text!r}: merge {merge!r} is none of {', '.join(get_args(Merge))}")
        names = layers.replace("L", "").split(",")
        return cls(tuple(float(n) if "." in n else int(n) for n in names), parts[0], cast(Merge, merge), shifts)

    def resolved(self, depth: int) -> TimmSpec:
        """Return the spec for a model of `depth` layers, which are numbered from 1."""
        if not self.layers:
            return self
        try:
            return replace(self, layers=FeatureSpec(layers=self.layers).resolved(depth).layers)
        except ValueError:
            raise ValueError(f"spec {self}: layers are numbered 1 to {depth}") from None

    def __str__(self) -> str:
        parts = [",".join(f"L{layer}" for layer in self.layers), self.pool] if self.layers else ["pooled"]
        merge = [self.merge] if len(self.layers) > 1 else []
        return "/".join([*parts, *merge, *([] if self.shifts == 1 else [f"shifts{self.shifts}"])])


@dataclass(frozen=True)
class EvaluationTransform:
    """Evaluation transform of a model of timm without its normalisation: upright picture to uint8 (channels, h, w).

    config: of `timm.data.resolve_model_data_config`.
    """

    config: dict[str, Any]

    def __post_init__(self) -> None:
        # with use_prefetcher timm leaves the normalisation to the device, which takes a quarter of the bytes
        transform = timm.data.create_transform(**self.config, is_training=False, use_prefetcher=True)
        object.__setattr__(self, "_transform", transform)

    def __call__(self, picture: Image.Image) -> np.ndarray:
        seen = as_seen(picture).convert(MODES[self.config["input_size"][0]])
        return np.asarray(self._transform(seen))  # type: ignore[attr-defined]

    def __str__(self) -> str:
        said = ", ".join(f"{name} {value}" for name, value in sorted(self.config.items()))
        return f"timm's evaluation transform ({said})"


class TimmEncoder(Encoder):
    """Features of a model of timm. All specs share one forward pass for each sub-patch shift.

    model: made with num_classes=0. specs: what `TimmSpec` parses; none is `pooled`. Raises a ValueError for what the
    model cannot do.
    """

    def __init__(self, model: Any, specs: Sequence[str | TimmSpec] = (), name: str = "") -> None:
        self.model, self.architecture = model.eval(), model.pretrained_cfg["architecture"]
        self.name = name or f"{TIMM}{self.architecture}"
        config = timm.data.resolve_model_data_config(model)
        self._transform = EvaluationTransform(config)
        self.prepare = self._transform
        parsed = [TimmSpec.parse(spec) for spec in specs] or [TimmSpec()]
        self._specs = [_checked(model, spec, config["input_size"][1:]) for spec in parsed]
        self.specs = tuple(str(spec) for spec in self._specs)
        parameter = next(model.parameters())
        self._mean, self._std = (
            torch.tensor(config[name], device=parameter.device)[:, None, None] for name in ("mean", "std")
        )
        self.dtype = parameter.dtype

    @torch.no_grad()
    def encode(self, batch: Tensor) -> list[np.ndarray]:
        """Return the features of images, uint8 (B, channels, h, w), as `Encoder.encode`."""
        pixels = ((batch.to(self._mean.device).float() / 255 - self._mean) / self._std).to(self.dtype)
        together: dict[tuple[int, int], list[TimmSpec]] = {}
        for spec in self._specs:
            together.setdefault((spec.shifts, 1 if spec.shifts == 1 else _stride(self.model, spec)), []).append(spec)
        found: dict[TimmSpec, Tensor] = {}
        for (count, stride), specs in together.items():
            at_each = [self._read(place, specs) for place in sub_patch_shifts(pixels, stride, count).unbind(1)]
            merged = (merge_shifts(torch.stack(places, 1)) for places in zip(*at_each, strict=True))
            found |= zip(specs, merged, strict=True)
        return [found[spec].cpu().numpy() for spec in self._specs]

    def _read(self, pixels: Tensor, specs: Sequence[TimmSpec]) -> list[Tensor]:
        """Return the features of pixels without shifts, one for each spec."""
        final, maps, tokens = self._forward(pixels, specs)
        found = []
        for spec in specs:
            if not spec.layers:
                found.append(self.model.forward_head(final, pre_logits=True).float())
                continue
            states = tokens if spec.pool == "cls" else maps
            readings = [_pooled(states[layer].float(), spec.pool) for layer in spec.layers]
            found.append(torch.stack(readings).mean(0) if spec.merge == "mean" else torch.cat(readings, 1))
        return found

    def _forward(
        self, pixels: Tensor, specs: Sequence[TimmSpec]
    ) -> tuple[Tensor | None, dict[int | float, Tensor], dict[int | float, Tensor]]:
        """Return the input of the head, maps (B, D, h, w) and class tokens (B, D) by layer, as far as specs ask."""
        layers = sorted({layer for spec in specs for layer in spec.layers})
        if not layers:
            return self.model.forward_features(pixels), {}, {}
        only = all(spec.layers for spec in specs)
        prefix = {"return_prefix_tokens": True} if any(spec.pool == "cls" for spec in specs) else {}
        indices = [int(layer) - 1 for layer in layers]
        found = self.model.forward_intermediates(
            pixels, indices, stop_early=only, intermediates_only=only, output_fmt="NCHW", **prefix
        )
        final, states = (None, found) if only else found
        if not prefix:
            return final, dict(zip(layers, states, strict=True)), {}
        by_layer = dict(zip(layers, states, strict=True))
        return (
            final,
            {layer: state for layer, (state, _) in by_layer.items()},
            {layer: prefix[:, 0] for layer, (_, prefix) in by_layer.items()},
        )

    def with_specs(self, specs: Sequence[str]) -> TimmEncoder:
        return TimmEncoder(self.model, specs, self.name)

    def dense(self) -> TimmEncoder:
        return self.with_specs(["L-1/none"])

    def record(self) -> dict[str, Any]:
        return {
            "model": f"{TIMM}{self.architecture}",
            "preprocessing": str(self._transform),
            "specs": [*self.specs],
            "dtype": str(self.dtype).removeprefix("torch."),
            "weights": weights.fingerprint(self.model),
        }


def _pooled(states: Tensor, how: str) -> Tensor:
    """Return a map (B, D, h, w) -> (B, F), or as it is for `none`; class tokens (B, D) as they are for `cls`."""
    if how == "mean":
        return states.mean((2, 3))
    if how == "max":
        return states.amax((2, 3))
    if how in ("none", "cls"):
        return states
    return F.adaptive_avg_pool2d(states, int(how.removeprefix("grid"))).flatten(1)


def _checked(model: Any, spec: TimmSpec, size: tuple[int, int]) -> TimmSpec:
    """Return `spec.resolved` for this model. Raises a ValueError for what the model cannot do."""
    name = model.pretrained_cfg["architecture"]
    if spec.shifts > 1 and not hasattr(model, "feature_info"):
        raise ValueError(f"spec {spec}: timm does not say what stride {name} has: leave the shifts out")
    if spec.shifts > 1 and spec.shifts > (stride := _stride(model, spec)):
        raise ValueError(f"spec {spec}: {name} reads a picture every {stride} pixels, so there are no more shifts")
    if not spec.layers:
        return spec
    if not hasattr(model, "forward_intermediates"):
        raise ValueError(f"spec {spec}: timm reads no layers of {name}, only `pooled`")
    info = FeatureInfo(model.feature_info, len(model.feature_info))
    spec = spec.resolved(len(model.feature_info))
    indices = [int(layer) - 1 for layer in spec.layers]
    widths, strides = ({all_of[i] for i in indices} for all_of in (info.channels(), info.reduction()))
    if spec.merge == "mean" and len(widths) > 1:
        raise ValueError(f"spec {spec}: these layers of {name} differ in width, so they can only be merged by concat")
    if spec.pool == "none" and len(strides) > 1:
        raise ValueError(f"spec {spec}: the maps of these layers of {name} differ in size: give a spec for each")
    has_prefix = "return_prefix_tokens" in inspect.signature(model.forward_intermediates).parameters
    if spec.pool == "cls" and (not has_prefix or getattr(model, "cls_token", None) is None):
        raise ValueError(f"spec {spec}: {name} has no class token: choose mean, max, none or gridG")
    cells = min(size) // max(strides)
    if spec.pool.startswith("grid") and int(spec.pool.removeprefix("grid")) > cells:
        raise ValueError(f"spec {spec}: pool {spec.pool} asks for more cells than a map of {cells} rows has")
    return spec


def _stride(model: Any, spec: TimmSpec) -> int:
    """Return the pixels between positions of the coarsest map that a spec reads."""
    strides = FeatureInfo(model.feature_info, len(model.feature_info)).reduction()
    layers = spec.resolved(len(strides)).layers or [len(strides)]
    return int(max(strides[int(layer) - 1] for layer in layers))


def open_timm(
    source: str, specs: Sequence[str], device: str | torch.device, dtype: torch.dtype, fresh: bool = False
) -> TimmEncoder:
    """Return an encoder of a model of timm.

    source: NAME, for its published weights, or NAME@CHECKPOINT, for those of a file. NAME?img_size=224,crop_pct=0.875
    takes images of another size, or another share of them, than timm's settings of the model say. fresh: random weights
    in place of any.

    Raises a FileNotFoundError, ConnectionError or ValueError of one sentence.
    """
    device = devices.pick(device)
    said, _, checkpoint = source.partition("@")
    name, _, options = said.partition("?")
    known = {*timm.list_models(), *timm.list_models(include_tags=True)}
    if name not in known:
        near = difflib.get_close_matches(name, known, 3)
        raise ValueError(
            f"timm has no model {name!r}: "
            + (f"did you mean {' or '.join(near)}?" if near else "timm.list_models() lists its names")
        )
    how = _options(said, options)
    size = {"img_size": how["img_size"]} if "img_size" in how else {}
    if fresh:
        model: Any = timm.create_model(name, pretrained=False, num_classes=0, **size)
    elif checkpoint:
        model = _from_file(name, Path(checkpoint), size)
    elif not timm.models.is_model_pretrained(name):
        raise ValueError(f"timm publishes no weights of {name}: give those of a file, {TIMM}{name}@CHECKPOINT")
    else:
        config: Any = timm.models.get_pretrained_cfg(name)
        with hub.explained(config.hf_hub_id or str(config.url), "the weight file"):
            model = timm.create_model(name, pretrained=True, num_classes=0, **size)
    if size:
        model.pretrained_cfg["input_size"] = (model.pretrained_cfg["input_size"][0], *[how["img_size"]] * 2)
    if "crop_pct" in how:
        model.pretrained_cfg["crop_pct"] = how["crop_pct"]
    return TimmEncoder(model.to(device, dtype), specs, f"{TIMM}{source}")


def _options(said: str, options: str) -> dict[str, Any]:
    """Parse the options behind the ? of a name."""
    types = {"img_size": int, "crop_pct": float}
    found: dict[str, Any] = {}
    for option in filter(None, options.split(",")):
        key, _, value = option.partition("=")
        try:
            found[key] = types[key](value)
        except (KeyError, ValueError):
            found[key] = 0
        if found[key] <= 0 or (key == "crop_pct" and found[key] > 1):
            raise ValueError(f"{TIMM}{said}: expected ?img_size=PIXELS, ?crop_pct=SHARE or both with a comma")
    return found


def _from_file(name: str, path: Path, size: dict[str, Any]) -> Any:
    """Return a model with the weights of a checkpoint, strictly, but without its classifier."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: check the path")
    model: Any = timm.create_model(name, pretrained=False, num_classes=0, **size)
    # timm's modules keep there a function that converts checkpoints of the models' authors
    translate = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    try:
        state = timm.models.load_state_dict(str(path), weights_only=True)  # older timm unpickles any code
        state = translate(state, model) if translate else state
    except Exception as error:  # timm raises many types, with long texts
        reason = str(error).partition("\n")[0].partition(". ")[0] or type(error).__name__
        raise ValueError(f"{path} is no checkpoint of {name} that timm can read ({reason}): check the path") from None
    heads = model.pretrained_cfg.get("classifier") or ()
    for head in (heads,) if isinstance(heads, str) else heads:
        for part in ("weight", "bias"):
            state.pop(f"{head}.{part}", None)
    try:
        weights.load_strict(model, state)
    except ValueError as error:
        raise ValueError(f"{path} does not fit {name}: {error}") from None
    return model
