import json
import math
import re

import official
import pytest
import tiny
import torch
from golden import KEYS, keywords, needs_golden

from randfeat import models, tokenizers, weights
from randfeat.models import SIZES
from randfeat.tokenizers import LlamaGenVQ, MaskGITVQ
from randfeat.weights import published
from randfeat.weights.identify import identify

OFFICIAL_CONFIG = ("vocab_size", "num_classes", "embed_dim", "depth", "ffn_dim")


def meta(state):
    return {name: torch.empty(shape, device="meta") for name, shape in state.items()}


@pytest.mark.parametrize("name", published.MODELS)
def test_published_models_at_full_size(name):
    row = published.MODELS[name]
    with torch.device("meta"):
        made = models.create(row.size, grid=row.grid, vocab_size=row.tokenizer.vocab_size, num_classes=1000)
    found = identify(weights.to_official(made))
    assert (found.model, found.size) == (SIZES[row.size][0], row.size)
    assert found.config == {key: made.config[key] for key in OFFICIAL_CONFIG}
    assert found.kv_dim == (made.embed_dim if found.model in ("randar", "llamagen") else None)
    assert found.tokens == (None if made.rotary else made.num_tokens)
    assert published.alike(found.size, found.config["vocab_size"], row.file, found.tokens) == row
    if found.tokens:  # which tell the size of the images whatever the name of the file
        assert published.alike(found.size, found.config["vocab_size"], "mine.pth", found.tokens) == row


@pytest.mark.parametrize("name", published.TOKENIZERS)
def test_published_tokenizers_at_full_size(name):
    row = published.TOKENIZERS[name]
    with torch.device("meta"):
        made = tokenizers.create(row.model, **row.config)
    found = identify(weights.to_official(made))
    assert found.model == row.model
    assert found.config == made.config
    assert found.stride == made.stride == (8 if name == "llamagen-vq8" else 16)


@needs_golden
@pytest.mark.parametrize("path", KEYS, ids=lambda path: path.stem)
def test_the_recorded_official_keys(path):
    recorded = json.loads(path.read_text())
    found, config = identify(meta(recorded["state_dict"])), recorded["config"]
    if not found.is_generator:
        assert found.config["vocab_size"] == config.get("codebook_size", config.get("num_embeddings"))
        assert found.config == tokenizers.create(found.model).config
        return
    assert found.size is not None
    wanted = keywords(found.model, config, {})
    assert all(wanted[key] == value for key, value in SIZES[found.size][1].items())
    for key in ("vocab_size", "num_classes"):
        assert found.config[key] == wanted[key]
    assert found.tokens in (None, math.prod(wanted["grid"]))


def test_any_model_is_told_from_its_state(build_official):
    made = build_official()
    found = identify(official.state_of(made))
    assert found.config == {key: made.config[key] for key in OFFICIAL_CONFIG}
    assert type(made) is models.MODELS[found.model]
    assert found.tokens == (None if made.rotary else 6)
    if found.kv_dim is not None:
        assert found.kv_dim * made.num_heads == made.num_kv_heads * made.embed_dim
    assert found.size is None


@pytest.mark.parametrize("kind", [LlamaGenVQ, MaskGITVQ])
@pytest.mark.parametrize(
    "config",
    [
        dict(vocab_size=9, code_dim=4, width=32, multipliers=[1, 2], num_res_blocks=1),
        dict(vocab_size=5, code_dim=6, width=64, multipliers=[1, 1, 3], num_res_blocks=3),
    ],
)
def test_any_tokenizer_is_told_from_its_state(kind, config):
    with torch.device("meta"):
        made = kind(**config)
    found = identify(official.state_of(made))
    assert found.config == made.config
    assert tokenizers.TOKENIZERS[found.model] is kind


def test_what_it_looks_like_in_words():
    def said(model):
        return str(identify(official.state_of(model)))

    assert said(tiny.model("arpg")) == "ARPG of width 16 with 2 blocks a half and 7 codes"
    assert said(tiny.model("randar", vocab_size=1024)) == "RandAR of width 16 with 2 blocks and 1,024 codes"
    assert said(tiny.model("llamagen", depth=3)) == "LlamaGen of width 16 with 3 blocks and 7 codes"
    assert said(tiny.model("lpd", depth=3)) == "LPD of width 16 with 3 blocks and 7 codes"
    assert said(tiny.model("rar")) == "RAR of width 16 with 2 blocks and 7 codes"
    assert said(official.tokenizer(7, 8)) == "LlamaGen's VQ tokenizer of 7 codes, 8 pixels a token"
    assert said(official.tokenizer(kind=MaskGITVQ)) == "MaskGIT's VQGAN tokenizer of 7 codes, 16 pixels a token"


def test_a_missing_block_is_missing_and_not_a_smaller_model(build_official):
    made = build_official(depth=3)
    state = official.state_of(made)
    block = re.compile(r"(layers\.(self_dec\.)?|blocks\.)1\.")
    for name in [name for name in state if block.match(name)]:
        del state[name]
    assert identify(state).config["depth"] == 3


def test_a_number_no_file_could_hold_is_no_block(build_official):
    state = official.state_of(build_official())
    for name in [name for name in state if re.search(r"\.1\.", name)]:
        state[name.replace(".1.", ".99999999.")] = state.pop(name)
    assert identify(state).config["depth"] == 1


@pytest.mark.parametrize(
    ("name", "without", "says"),
    [
        ("arpg", ["head.weight", "embeddings.weight"], "ARPG without embeddings.weight, head.weight"),
        ("randar", ["tok_embeddings.weight"], "RandAR without tok_embeddings.weight"),
        ("lpd", ["pos_embed"], "LPD without pos_embed"),
        ("rar", ["timesteps_embeddings", "lm_head.weight"], "RAR without timesteps_embeddings, lm_head.weight"),
    ],
)
def test_what_is_needed_and_not_there_is_named(name, without, says):
    state = official.state_of(tiny.model(name))
    for key in without:
        del state[key]
    with pytest.raises(ValueError, match=f"this looks like {says}: part of it is missing"):
        identify(state)


def test_impossible_shapes_and_strange_names():
    state = official.state_of(tiny.model("arpg"))
    with pytest.raises(ValueError, match=r"ARPG of impossible shapes: .*head.weight \(3,\)"):
        identify(state | {"head.weight": torch.ones(3)})
    with pytest.raises(ValueError, match=r"no model that randfeat knows: it begins with bert.weight, bert.bias"):
        identify({"bert.weight": torch.ones(3), "bert.bias": torch.ones(3)})
    with pytest.raises(ValueError, match="begins with none"):
        identify({})


def test_the_table_says_what_was_published():
    files = {name: row.file for name, row in published.MODELS.items()}
    assert files["randar-l-maskgit"] == "randar_0.3b_maskgit_360k_bs_1024_lr_0.0004.safetensors"
    assert files["randar-xl-llamagen"] == "randar_0.7b_llamagen_360k_bs_1024_lr_0.0004.safetensors"
    assert files["lpd-xl-512"] == "lpd_xl_512.pth"
    assert files["rar-xxl"] == "rar_xxl.bin"
    assert len(set(files.values())) == len(files)
    assert {name: row.grid[0] for name, row in published.MODELS.items() if row.grid != (16, 16)} == {
        **dict.fromkeys(("llamagen-b-384", "llamagen-l-384", "llamagen-xl", "llamagen-xxl", "llamagen-3b"), 24),
        **dict.fromkeys(("lpd-l-512", "lpd-xl-512"), 32),
    }
    for name, row in published.MODELS.items():
        guidance = row.sampling.guidance
        if name.startswith("randar"):
            assert (row.sampling.steps, row.sampling.schedule) == (88, "cosine-randar")
            assert [guidance.at(done, 1, 256) for done in (0, 128)] == [1.0, 2.5]
        elif name.startswith("lpd"):
            assert row.sampling.steps == (48 if "512" in name else 20)
            assert guidance.scales(128, 2, 256) == [guidance.at(done, 1, 256) for done in (128, 129)]
            assert (guidance.at(0, 1, 256), guidance.at(256, 1, 256)) == (1.0, guidance.scale)
            assert (row.sampling.schedule, row.sampling.order) == ("lpd", "locality")
        elif name.startswith("rar"):
            assert (row.sampling.steps, row.tokenizer.name) == (None, "maskgit-vq")
            assert (guidance.at(0, 1, 256), guidance.at(256, 1, 256)) == (1.0, guidance.scale)
        else:
            assert guidance.at(0, 1, 256) == guidance.scale > 1
            assert row.sampling.steps == (64 if name.startswith("arpg") else None)
