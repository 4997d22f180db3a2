"""The recorded outputs of the official implementations: each case is run from what its json says, none by its name.

Other folders of the same format run with RANDFEAT_GOLDEN=DIR:DIR.
"""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from golden import (
    FOLDERS,
    KEYS,
    build,
    cases,
    check_generated,
    check_gradients,
    close,
    keywords,
    load,
    needs_golden,
    official_state,
    recorded_order,
    unmasked_arpg,
)
from randfeat.pretrain import Objective
from successors import RUN as RUN_SUCCESSORS
from torch import Tensor

from randfeat import tokenizers, weights
from randfeat.inference import sampling
from randfeat.inference.extrapolation import Extrapolation, enlarge
from randfeat.inference.schedules import Guidance, tokens_per_step
from randfeat.models import SIZES, Generator, create, orders
from randfeat.models.layers import stretched_rope_table
from randfeat.tokenizers import LlamaGenVQ, MaskGITVQ
from randfeat.tokenizers.vq import VQTokenizer


@needs_golden
@pytest.mark.parametrize("path", cases(""))
def test_official_outputs(path):
    case, tensors = load(path)
    run = RUN.get((case["family"], case["kind"]))
    assert run is not None, f"nothing here runs a {case['family']} {case['kind']}"
    run(case, tensors)


RECORDED_SCHEDULES = next(
    (folder / "schedules.json" for folder in FOLDERS if (folder / "schedules.json").is_file()), None
)


@pytest.mark.skipif(RECORDED_SCHEDULES is None, reason="these recorded outputs have no schedules.json")
@pytest.mark.parametrize(
    ("recorded", "schedule"),
    [("randar", "cosine-randar"), ("arpg_cosine", "cosine-arpg"), ("arpg_arccos", "arccos")],
)
def test_official_schedules(recorded, schedule):
    for name, sizes in json.loads(RECORDED_SCHEDULES.read_text())[recorded].items():
        count, steps = map(int, name.split("_"))
        assert tokens_per_step(schedule, count, steps) == sizes, name


# what a file of keys calls a model -> what we do
MODEL_OF = {"1d-tokenizer": "rar", "ARPG": "arpg", "LlamaGen": "llamagen", "lpd": "lpd", "RandAR": "randar"}
TOKENIZER_OF = {"VQModel": "llamagen_vq", "MaskGITTokenizer": "maskgit_vq"}


@needs_golden
@pytest.mark.parametrize("path", KEYS, ids=lambda path: path.stem)
def test_full_size_models_have_the_official_keys(path):
    recorded = json.loads(path.read_text())
    with torch.device("meta"):
        tokenizer = TOKENIZER_OF.get(recorded["official"]["class"])
        made = tokenizers.create(tokenizer) if tokenizer else of_published_size(path.stem, recorded)
    state = {name: list(value.shape) for name, value in weights.to_official(made).items()}
    unused = made.unused if tokenizer else ()
    assert list(unused) == recorded["buffers"]
    assert state == {name: shape for name, shape in recorded["state_dict"].items() if name not in unused}
    assert sum(p.numel() for p in made.parameters()) == recorded["n_params"]


def of_published_size(stem: str, recorded: dict[str, Any]) -> Generator:
    model = MODEL_OF[recorded["official"]["repo"].split("/")[1]]
    wanted = keywords(model, recorded["config"], {})
    size = next(
        name
        for name, (its_model, own) in SIZES.items()
        if its_model == model and all(wanted[k] == v for k, v in own.items())
    )
    assert size.removeprefix(f"{model}_") in stem.split("_")
    return create(size, **{name: wanted[name] for name in ("grid", "vocab_size", "num_classes")})


# how each kind of case is run -----------------------------------------------------------------------------------


def run_teacher_forced(case: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    model = build(case, tensors)
    tokens, label = tensors["in.idx"], tensors["in.cond"]
    order = recorded_order(model, tensors)
    causal = case["family"] != "arpg" or case["mode"] == "train"
    logits = model(tokens, label, order) if causal else unmasked_arpg(model, tokens, label, order)
    if causal:  # as training computes it
        loss = Objective(model)(tokens, label, order)[0] / tokens.numel()
    else:
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), orders.gather(tokens, order).flatten())
    close(logits, tensors.get("out.logits", tensors.get("out.token_logits")), case)
    close(loss, tensors["out.loss"], case)
    close(torch.view_as_real(model.rope(tokens.device)), tensors["out.freqs_cis"], case)
    if causal:
        check_hidden(model, case, tensors, tokens, label, order)
    if case["params"]["grads"]:
        loss.backward()
        check_gradients(model, case, tensors)


def check_hidden(model, case, tensors, tokens, label, order):
    """The streams of every block, as `hidden` reads them, against the recorded states in order space."""
    layers = range(1, model.depth + 1)
    token, query = (
        [orders.gather(x, order) for x in model.hidden(tokens, label, order, layers, stream=stream)]
        for stream in (model.streams[0], model.streams[-1])
    )
    for i in range(model.depth):
        if case["family"] == "llamagen_gpt":  # leaves the last token out and keeps the class
            close(token[i][:, :-1], tensors[f"out.hidden_layer{i}"][:, 1:], case)
        elif case["family"] == "randar":
            recorded = tensors[f"out.hidden_layer{i}"]
            close(query[i], recorded[:, 1::2], case)
            close(token[i], recorded[:, 2::2], case)
        else:  # the official first pass leaves the last token out and keeps the class
            close(token[i][:, :-1], tensors[f"out.hidden_self{i}"][:, 1:], case)
            close(query[i], tensors[f"out.hidden_cross{i}"], case)


def official_sampling(case: dict[str, Any]) -> sampling.Sampling:
    p = case["params"]
    if case["family"] == "randar":
        guidance = official_guidance(*p["cfg_scales"])
        steps, schedule = p["num_inference_steps"], "cosine-randar"
    elif case["family"] == "llamagen_gpt":
        # decode steps up to this one are guided, counted from the second token; -1 is all
        last = math.inf if p["cfg_interval"] == -1 else (p["cfg_interval"] + 1) / p["max_new_tokens"]
        guidance, steps, schedule = Guidance(max(p["cfg_scale"], 1.0), interval=(0, last)), None, "one-by-one"
    else:
        guidance = Guidance(p["guidance_scale"], p["cfg_schedule"], counted="after")
        steps, schedule = p["num_iter"], {"arccos": "arccos", "cosine": "cosine-arpg"}[p["sample_schedule"]]
    return sampling.Sampling(
        steps=None if steps == -1 else steps,
        schedule=schedule,
        guidance=guidance,
        temperature=p["temperature"],
        top_k=p["top_k"],
        top_p=p["top_p"],
    )


def official_guidance(start: float, end: float) -> Guidance:
    return Guidance(end, "linear", start, "before") if end > 1 else Guidance()


def run_generate(case: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    model, label = build(case, tensors), tensors["in.cond"]
    order = recorded_order(model, tensors)
    steps = list(sampling.decode(model, label, torch.zeros_like(label), official_sampling(case), order))
    check_generated(steps, order, case, tensors)


def run_extrapolate(case: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    model, label, p = build(case, tensors), tensors["in.cond"], case["params"]
    order, how, seeds = tensors["in.token_order"], official_sampling(case), torch.zeros_like(label)
    assert p["extrapolation_factor"] == int(p["extrapolation_factor"])
    spatial = Guidance() if how.guidance.off else official_guidance(*p["spatial_cfg_scales"])
    larger = Extrapolation(int(p["extrapolation_factor"]), p["ntk_boundary"], spatial, p["spatial_masking_ratio"])

    low_order = larger.small_order(model.grid, order)
    assert torch.equal(low_order, tensors["out.low_token_order"])
    low = list(sampling.decode(model, label, seeds, how, low_order))
    assert torch.equal(low[-1].tokens, tensors["out.low_indices"])
    blind = None if spatial.off else tensors["in.spatial_perm"][:, : math.floor(low_order.shape[1] * larger.blind)]
    high = list(enlarge(model, low[-1].tokens, label, seeds, how, larger, order, blind))
    assert high[-1].positions.shape[1] == case["undecoded_tail_tokens"]
    assert (high[-1].tokens != sampling.UNKNOWN).all()
    run_officially = high[:-1]  # the official code never runs the last step: its tokens stay at index 0
    tokens = high[-1].tokens.scatter(1, high[-1].positions, 0)
    assert torch.equal(tokens, tensors["out.indices"])
    assert torch.equal(orders.gather(tokens, order), tensors["out.indices_in_order"])
    for phase, steps in (("low", low), ("hi", run_officially)):
        assert [step.positions.shape[1] for step in steps] == tensors[f"out.{phase}_tokens_per_step"].tolist()
        close(torch.cat([step.raw_logits for step in steps], 1), tensors[f"out.{phase}_raw_logits"], case)
        close(torch.cat([step.logits for step in steps], 1), tensors[f"out.{phase}_guided_logits"], case)
    table = stretched_rope_table(
        model.grid, larger.factors, larger.boundary, model.embed_dim // model.num_heads, model.rope_base, label.device
    )
    close(torch.view_as_real(table), tensors["out.freqs_cis_hi"], case)


def run_filter(case: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    for i, (top_k, top_p) in enumerate(case["params"]["settings"]):
        filtered = sampling.filter_logits(tensors["in.logits"], top_k, top_p)
        close(filtered, tensors[f"out.filtered{i}"], case)
        close(filtered.softmax(-1), tensors[f"out.probs{i}"], case)


def build_tokenizer(case: dict[str, Any], tensors: dict[str, Tensor]) -> VQTokenizer:
    config = case["config"]
    if case["family"] == "vq":
        assert config["encoder_ch_mult"] == config["decoder_ch_mult"]
        tokenizer: VQTokenizer = LlamaGenVQ(
            vocab_size=config["codebook_size"],
            code_dim=config["codebook_embed_dim"],
            width=config["ch"],
            multipliers=config["encoder_ch_mult"],
            num_res_blocks=config["num_res_blocks"],
            latent_dim=config["z_channels"],
            l2_norm=config.get("codebook_l2_norm", True),
        )
    else:
        tokenizer = MaskGITVQ(
            vocab_size=config["num_embeddings"],
            code_dim=config["embedding_dim"],
            width=config["hidden_channels"],
            multipliers=config["channel_mult"],
            num_res_blocks=config["num_res_blocks"],
        )
    weights.load_strict(tokenizer, weights.from_official(tokenizer, official_state(tensors)))
    assert {k: list(v.shape) for k, v in weights.to_official(tokenizer).items()} == {
        k: shape for k, shape in case["state_keys"].items() if k not in tokenizer.unused
    }
    return tokenizer.eval()


@torch.no_grad()
def run_tokenizer(case: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    tokenizer = build_tokenizer(case, tensors)

    low = -1 if case["family"] == "vq" else 0  # official images are in [-1, 1] there, ours in [0, 1]

    def theirs(images: Tensor) -> Tensor:
        return images * (1 - low) + low

    sizes = [name.removeprefix("in.image") for name in tensors if name.startswith("in.image")]
    assert sizes
    for size in sizes:
        images, tokens = (tensors[f"in.image{size}"] - low) / (1 - low), tensors[f"out.indices{size}"]
        close(tokenizer.latents(images), tensors[f"out.prequant{size}"], case)
        found = tokenizer.encode(images)
        assert found.shape == (len(images), *(side // tokenizer.stride for side in images.shape[2:]))
        assert torch.equal(found.flatten(1), tokens)
        close(tokenizer.codes(found), tensors[f"out.quant{size}"], case)
        raw = tensors.get(f"out.decoded_unclamped{size}", tensors[f"out.decoded{size}"])
        close(theirs(tokenizer.pixels(tokenizer.codes(found))), raw, case)
        decoded = tokenizer.decode(found)
        close(theirs(decoded), raw.clamp(low, 1), case)
        levels = (255 * decoded).round().permute(0, 2, 3, 1) - tensors[f"out.uint8{size}"].float()
        assert levels.abs().max() <= 1
    for name, (h, w) in case["params"]["codes_hw"].items():
        codes = tensors[f"in.{name}"].unflatten(1, (h, w))
        close(theirs(tokenizer.decode(codes)), tensors[f"out.{name}_image"].clamp(low, 1), case)
        if f"out.{name}_embed" in tensors:
            close(tokenizer.codes(codes), tensors[f"out.{name}_embed"], case)


RUN = {
    ("arpg", "generate"): run_generate,
    ("arpg", "teacher_forced"): run_teacher_forced,
    ("filter", "filter"): run_filter,
    ("llamagen_gpt", "generate"): run_generate,
    ("llamagen_gpt", "teacher_forced"): run_teacher_forced,
    ("maskgit", "tokenizer"): run_tokenizer,
    ("randar", "extrapolate"): run_extrapolate,
    ("randar", "generate"): run_generate,
    ("randar", "teacher_forced"): run_teacher_forced,
    ("vq", "tokenizer"): run_tokenizer,
    **RUN_SUCCESSORS,
}
