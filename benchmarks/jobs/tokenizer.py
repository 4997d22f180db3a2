"""LlamaGen's VQ-16 tokenizer: encoding, decoding and a step of its training, beside the official code."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from randfeat.pretrain.optim import adamw, parameter_groups, update
from randfeat.pretrain.vq import TokenizerConfig, read_tokenizer_recipe
from randfeat.pretrain.vq.config import LossConfig
from randfeat.pretrain.vq.objective import TokenizerObjective, Trainee
from torch import Tensor, nn

from benchmarks import official
from benchmarks.cases import Case, Make, Setting
from benchmarks.measure import apart
from randfeat.tokenizers import LlamaGenVQ
from randfeat.utils.allocation import reused_memory


def scaled(tokenizer: LlamaGenVQ) -> LlamaGenVQ:
    """Give random weights that keep the scale of latents through the layers."""
    torch.manual_seed(0)
    for parameter in tokenizer.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return tokenizer


def frozen(setting: Setting) -> LlamaGenVQ:
    return scaled(LlamaGenVQ(width=setting.pick(32, 128, 128))).eval().requires_grad_(False)


def pixels(setting: Setting) -> Tensor:
    side = setting.pick(64, 256, 256)
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(1))


def in_bfloat16(ours: LlamaGenVQ, tokens: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return ours.decode(tokens)


def pictures(setting: Setting) -> Iterator[Case]:
    """Yield encoding and decoding; images are always encoded in float32, since in bfloat16 other codes are nearest."""
    images = pixels(setting)

    def make(side: str, way: str) -> Callable[[], Any]:
        ours = frozen(setting)
        tokens = ours.encode(images)
        if side == "official":
            theirs = official.build_tokenizer(ours, setting.peers["llamagen"]).requires_grad_(False)
            shape = [len(images), 8, *tokens.shape[1:]]
            encoded = partial(theirs.encode, 2 * images - 1)
            return (lambda: encoded()[2][2]) if way == "encode" else lambda: theirs.decode_code(tokens, shape)
        ways = {"encode": lambda: ours.encode(images), "decode": lambda: ours.decode(tokens)}
        return ways.get(way, lambda: in_bfloat16(ours, tokens))

    def facts(way: str) -> Mapping[str, Any]:
        ours, theirs = make("ours", way)(), make("official", way)()
        if way == "encode":
            return {"indices equal": float((ours.flatten() == theirs.flatten()).float().mean())}
        return {"largest difference of a pixel in [0, 1]": float((ours - (theirs.clamp(-1, 1) + 1) / 2).abs().max())}

    for way in ("encode", "decode", "decode in bfloat16"):
        peers: dict[str, Make] = {}
        if "llamagen" in setting.peers:
            peers["official"] = partial(make, "official", way)
        if way == "decode in bfloat16":
            peers["float32"] = partial(make, "ours", "decode")
        checked = partial(facts, way) if "official" in peers else dict
        yield Case(f"VQ-16, {way}", partial(make, "ours", way), peers, facts=checked)


# training -------------------------------------------------------------------------------------------------------------


def recipe_of(width: int) -> TokenizerConfig:
    """Return the recipe of the published tokenizer, with another width and squared error alone."""
    recipe = read_tokenizer_recipe("tokenizer_vq16")
    return replace(recipe, network=replace(recipe.network, width=width), loss=LossConfig(l2=1.0))


class Ours:
    """Our trainee and its objective, with the same weights as the official tokenizer."""

    def __init__(self, width: int) -> None:
        self.recipe = recipe_of(width)
        self.trainee = Trainee(scaled(self.recipe.build(3, None)), self.recipe).train()
        self.objective = TokenizerObjective(self.trainee, self.recipe)

    def loss(self, images: Tensor) -> Tensor:
        return self.objective(images, torch.zeros(len(images), 2, dtype=torch.int64), 0)[0] / len(images)

    def step(self, images: Tensor) -> Callable[[], None]:
        config, tokenizer, care = self.recipe.training, self.trainee.tokenizer, self.trainee.care
        assert care is not None
        optimizer = adamw(parameter_groups(tokenizer, config), config)
        number = 0

        def step() -> None:
            nonlocal number
            optimizer.zero_grad(set_to_none=True)
            self.loss(images).backward()
            update(optimizer, [tokenizer], number, config)
            number += 1
            care.finish_step(number, optimizer, None)

        return step


def official_loss(theirs: nn.Module, images: Tensor) -> Tensor:
    """Return the loss of the official trainer, of images in [-1, 1]; it computes an entropy loss of weight 0."""
    images = 2 * images - 1
    made, (codebook, commitment, entropy, _) = theirs(images)
    return F.mse_loss(images, made) + codebook + commitment + entropy


def official_step(theirs: nn.Module, images: Tensor, recipe: TokenizerConfig) -> Callable[[], None]:
    config = recipe.training
    optimizer = torch.optim.Adam(theirs.parameters(), lr=config.learning_rate, betas=config.betas)

    def step() -> None:
        optimizer.zero_grad()
        official_loss(theirs, images).backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), config.clip)
        optimizer.step()

    return step


def stepper(setting: Setting, side: str, width: int) -> Callable[[], None]:
    """Return a call that takes a step, in a process that keeps freed memory unless the side's allocation is plain."""
    ours, images = Ours(width), pixels(setting)
    step = ours.step(images)
    if side.startswith("official"):
        theirs = official.build_tokenizer(ours.trainee.tokenizer, setting.peers["llamagen"])
        step = official_step(theirs.train(), images, ours.recipe)
    kept = ExitStack()
    if side in ("ours", "official, memory reused"):
        kept.enter_context(reused_memory(images.device))

    def call(kept: ExitStack = kept) -> None:
        step()

    return call


def training(setting: Setting) -> Iterator[Case]:
    """Yield a step in float32: forward pass, squared error, codebook and commitment loss, backward pass, clipping and
    Adam, without perceptual loss and GAN. Each side has a process, since ours keeps freed memory.
    """
    names = ["memory returned", *["official", "official, memory reused"] * ("llamagen" in setting.peers)]
    for width in setting.pick((32,), (64,), (128, 64)):
        sides = {side: partial(apart, partial(stepper, setting, side, width)) for side in ("ours", *names)}
        checked = partial(differences, setting, width) if "llamagen" in setting.peers else dict
        yield Case(f"VQ-16, step of width {width}", sides.pop("ours"), sides, facts=checked)


def differences(setting: Setting, width: int) -> Mapping[str, Any]:
    """Return how far both sides differ in loss, tokens and gradients, these relative to each one's largest."""
    ours, images = Ours(width), pixels(setting)
    tokenizer = ours.trainee.tokenizer
    theirs: Any = official.build_tokenizer(tokenizer, setting.peers["llamagen"]).train()
    loss, expected = ours.loss(images), official_loss(theirs, images)
    loss.backward()
    expected.backward()
    found, apart_by = dict(tokenizer.named_parameters()), 0.0
    for name, parameter in theirs.named_parameters():
        # a key's bias moves all logits of a row alike, so that its gradient is rounding alone
        if not name.endswith(".k.bias"):
            off = (found[name].grad - parameter.grad).abs().max() / parameter.grad.abs().max()
            apart_by = max(apart_by, float(off))
    with torch.no_grad():
        equal = tokenizer.encode(images).flatten() == theirs.encode(2 * images - 1)[2][2]
    return {
        "difference of the losses": abs(loss.item() - expected.item()),
        "of a gradient, relative": apart_by,
        "tokens equal": float(equal.float().mean()),
    }
