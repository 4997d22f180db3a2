"""Runs of the recorded cases of LPD and RAR, see `golden`."""

from __future__ import annotations

from typing import Any

import torch
from golden import build, check_generated, check_gradients, close, recorded_order
from randfeat.pretrain import Objective
from randfeat.pretrain.data import random_share
from torch import Tensor, nn

from randfeat.inference import sampling
from randfeat.inference.schedules import Guidance
from randfeat.models import Generator, orders
from randfeat.models.locality import Draws, decoding_order
from randfeat.models.lpd import group_mask, resized_positions


def outputs_of(modules: nn.ModuleList) -> tuple[list[Tensor], list[Tensor]]:
    """Return two lists that fill at each call: the inputs of the first module, and the outputs of each."""
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []
    modules[0].register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    for module in modules:
        module.register_forward_hook(lambda *called: outputs.append(called[2]))
    return inputs, outputs


def run_lpd_teacher_forced(case: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    model, sizes = build(case, tensors), case["params"]["group_sizes"]
    tokens, label, order = tensors["in.idx"], tensors["in.cond"], recorded_order(model, tensors)
    inputs, outputs = outputs_of(model.blocks)
    states = model.pre_logits(tokens, label, order, sizes=sizes)
    total, _ = Objective(model).losses(states, tokens, order)
    loss = total / tokens.numel()  # as training computes it
    close(model.head(states), tensors["out.logits"], case)
    close(loss, tensors["out.loss"], case)
    close(inputs[0], tensors["out.hidden_in"], case)
    for i, output in enumerate(outputs):
        close(output, tensors[f"out.hidden_layer{i}"], case)
    close(states, tensors["out.hidden_norm"][:, -order.shape[1] :], case)
    group = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    if "out.attn_mask" in tensors:
        assert torch.equal(group_mask(group[: len(group) - sizes[-1]], group), tensors["out.attn_mask"])
    if set(sizes) == {1}:  # the chain rule, which everything here reads by default
        close(model(tokens, label, order), tensors["out.logits"], case)
        check_lpd_streams(model, case, tensors)
    if case["params"]["grads"]:
        loss.backward()
        check_gradients(model, case, tensors)


def check_lpd_streams(model: Generator, case: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """The streams of every block, as `hidden` reads them, against the recorded states in order space."""
    tokens, label, order = tensors["in.idx"], tensors["in.cond"], recorded_order(model, tensors)
    layers, count = range(1, model.depth + 1), order.shape[1]
    for stream, rows in (("token", slice(1, count)), ("query", slice(count, None))):
        for i, state in enumerate(model.hidden(tokens, label, order, layers, stream=stream)):
            recorded = tensors[f"out.hidden_layer{i}"][:, rows]  # the last token was not fed
            close(orders.gather(state, order)[:, : recorded.shape[1]], recorded, case)


def run_lpd_generate(case: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    model, label, p = build(case, tensors), tensors["in.cond"], case["params"]
    how = sampling.Sampling(
        schedule=tuple(p["group_sizes"]),
        guidance=Guidance(p["cfg"], p["cfg_schedule"], counted="token" if p["cfg_schedule"] == "linear" else "before"),
        temperature=p["temperature"],
        top_k=p["top_k"],
        top_p=p["top_p"],
    )
    order = recorded_order(model, tensors)
    steps = list(sampling.decode(model, label, torch.zeros_like(label), how, order))
    check_generated(steps, order, case, tensors)
    if not how.guidance.off:
        check_scales(how.guidance, p["group_sizes"], tensors["out.cfg_scale"], case)


def check_scales(guidance: Guidance, sizes: list[int], recorded: Tensor, case: dict[str, Any]) -> None:
    scales: list[float] = []
    for size in sizes:
        scales += guidance.scales(len(scales), size, sum(sizes))
    close(torch.tensor(scales), recorded, case)


def run_lpd_order(case: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    for j, setting in enumerate(case["params"]["settings"]):
        ranks, drawn = tensors[f"in.ranks{j}"].long(), tensors[f"in.drawn{j}"]

        def index(step: int, sizes: Tensor, drawn: Tensor = drawn) -> Tensor:
            return drawn[:, step]

        draws = Draws(tensors[f"in.first{j}"], ranks.unbind(1).__getitem__, index)
        # the official first step decodes one token, whatever its size
        sizes = [1, *setting["group_sizes"][1:]]
        thresholds = setting["proximity_threshold"], setting["repulsion_threshold"]
        made = decoding_order((setting["grid"],) * 2, sizes, draws, *thresholds)
        assert torch.equal(made, tensors[f"out.order{j}"])


def run_lpd_pos_embed(case: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    for side in case["params"]["to_grids"]:
        trained = tensors["in.pos_embed"]
        grid = (round((trained.shape[1] - 1) ** 0.5),) * 2
        close(resized_positions(trained, grid, (side, side)), tensors[f"out.pos_embed_{side}"], case)


def run_rar_teacher_forced(case: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    model = build(case, tensors)
    tokens, label, order = tensors["in.idx"], tensors["in.cond"], recorded_order(model, tensors)
    close(model(tokens, label, order), tensors["out.logits"], case)
    total, _ = Objective(model)(tokens, label, order)
    loss = total / tokens.numel()  # as training computes it
    close(loss, tensors["out.loss"], case)
    close(model.pre_logits(tokens, label, order), tensors["out.hidden_norm"][:, :-1], case)
    vector = model._vector(model._class(label), torch.arange(2 + model.num_tokens))
    close(vector, tensors["out.condition"], case)
    inputs, outputs = outputs_of(model.blocks)
    states = model.hidden(tokens, label, order, range(1, model.depth + 1))
    close(inputs[0], tensors["out.hidden_in"], case)
    for i, (output, state) in enumerate(zip(outputs, states, strict=True)):
        recorded = tensors[f"out.hidden_layer{i}"]
        close(output, recorded[:, -output.shape[1] :], case)  # of the deepest only what was asked for
        close(orders.gather(state, order), recorded[:, 2:], case)
    last = model.normed(outputs[-1][:, -1:], vector[:, -1:])
    close(model.head(last)[:, 0], tensors["out.logits_after_last"], case)
    if case["params"]["grads"]:
        loss.backward()
        check_gradients(model, case, tensors)


def rar_guidance(scale: float, power: float) -> Guidance:
    return Guidance() if scale == 0 else Guidance(scale, "power-cosine", power=power)


def run_rar_generate(case: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    model, label, p = build(case, tensors), tensors["in.cond"], case["params"]
    guidance = rar_guidance(p["guidance_scale"], p["guidance_scale_pow"])
    how = sampling.Sampling(guidance=guidance, temperature=p["randomize_temperature"], top_k=1)
    order = recorded_order(model, tensors)
    steps = list(sampling.decode(model, label, torch.zeros_like(label), how, order if p["pass_order"] else None))
    check_generated(steps, order, case, tensors)
    if not guidance.off:
        check_scales(guidance, [1] * model.num_tokens, tensors["out.cfg_scale"], case)
    if "out.probs" in tensors:
        probabilities = (torch.cat([step.logits for step in steps], 1) / how.temperature).softmax(-1)
        close(probabilities, tensors["out.probs"], case)


def run_rar_guidance(case: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    for setting, recorded in zip(case["params"]["settings"], tensors["out.cfg_scale"], strict=True):
        check_scales(rar_guidance(*setting), [1] * case["params"]["image_seq_len"], recorded, case)


def run_rar_random_ratio(case: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    steps = 250_000  # of the published training
    until = tuple(case["params"][f"randomness_anneal_{name}"] / steps for name in ("start", "end"))
    shares = [random_share(step / steps, until) for step in tensors["in.step"].tolist()]
    close(torch.tensor(shares, dtype=torch.float64), tensors["out.random_ratio"], case)


RUN = {
    ("lpd", "generate"): run_lpd_generate,
    ("lpd", "order"): run_lpd_order,
    ("lpd", "pos_embed"): run_lpd_pos_embed,
    ("lpd", "teacher_forced"): run_lpd_teacher_forced,
    ("rar", "generate"): run_rar_generate,
    ("rar", "guidance_scales"): run_rar_guidance,
    ("rar", "random_ratio"): run_rar_random_ratio,
    ("rar", "teacher_forced"): run_rar_teacher_forced,
}
