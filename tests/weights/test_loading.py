"""`load` and `load_tokenizer` on what lies on the disk; tests/test_hub.py has what comes from the hub."""

import shutil
from functools import partial

import official
import pytest
import tiny
import torch
from golden import cases, close, keywords, needs_golden, official_state, recorded_order, unmasked_arpg
from golden import load as load_case

from randfeat import Guidance, Pipeline, Sampling, load, load_tokenizer, weights
from randfeat.tokenizers import LlamaGenVQ, MaskGITVQ, PatchTokenizer
from randfeat.weights import checkpoints, published

GRID = (2, 3)
TOLD = dict(num_heads=2, grid=GRID)


@pytest.fixture
def codes():
    return official.tokenizer()


@pytest.fixture(params=[variant for variant in tiny.OFFICIAL if "control" not in variant[1]], ids=tiny.name)
def plain(request):
    """The generators that official files hold, which know nothing of control."""
    name, config = request.param
    return lambda: tiny.model(name, (2, 3), **config)


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# official files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt", "a.bin"])
def test_an_official_file_is_the_model_that_it_was_made_of(tmp_path, plain, codes, name):
    made = plain()
    opened = load(official.write(tmp_path / name, official.state_of(made), "model"), tokenizer=codes, **TOLD)
    assert opened.generator.config == made.config
    assert same(opened.generator, made)
    assert opened.tokenizer is codes
    assert not opened.training
    assert opened.sampling == Sampling()
    assert opened.class_names == ["0", "1", "2"]
    tokens, label, order = tiny.batch(made)
    assert torch.equal(opened.generator(tokens, label, order), made(tokens, label, order))


@pytest.mark.parametrize("kind", [LlamaGenVQ, MaskGITVQ])
@pytest.mark.parametrize("container", official.CONTAINERS)
def test_an_official_tokenizer(tmp_path, kind, container):
    made = official.tokenizer(kind=kind)
    opened = load_tokenizer(official.write(tmp_path / "vq.pt", official.state_of(made), container))
    assert opened.config == made.config
    assert same(opened, made)
    assert not opened.training


def test_every_source_of_a_tokenizer(tmp_path, codes):
    file = official.write(tmp_path / "vq.pt", official.state_of(codes), "model")
    made = tiny.model("arpg", GRID)
    Pipeline(codes, made).save(tmp_path / "model")
    weights_file = official.write(tmp_path / "arpg.pt", official.state_of(made), "model")
    for source in (file, str(file), tmp_path / "model", str(tmp_path / "model" / "tokenizer"), codes):
        assert same(load(weights_file, tokenizer=source, **TOLD).tokenizer, codes)


def test_a_tokenizer_of_other_codes_is_refused(tmp_path):
    file = official.write(tmp_path / "arpg.pt", official.state_of(tiny.model("arpg", GRID)))
    with pytest.raises(ValueError, match="the tokenizer has 8 codes, the generator 7"):
        load(file, tokenizer=official.tokenizer(8), **TOLD)
    with pytest.raises(ValueError, match=r"ARPG .* and 7 codes, and no published tokenizer has as many: give load\("):
        load(file, **TOLD)


def test_what_no_file_tells_must_be_told(tmp_path, plain, codes):
    file = official.write(tmp_path / "a.safetensors", official.state_of(plain()))
    with pytest.raises(ValueError, match=r"no published size, .* give load\(..., num_heads=..., grid=...\)"):
        load(file, tokenizer=codes)
    if plain().rotary:
        assert load(file, num_heads=2, tokenizer=codes).generator.grid == (16, 16)
    else:
        with pytest.raises(ValueError, match=r"for 6 tokens, which are no square: give load\(..., grid=...\)"):
            load(file, num_heads=2, tokenizer=codes)
    for wrong in (3, 0, -2, "4", 4.0, True):
        with pytest.raises(ValueError, match=r"num_heads .*must be .*whole number"):
            load(file, num_heads=wrong, grid=GRID, tokenizer=codes)
    for grid in ((), (4,), (0, 4), (-1, 4), (2.5, 3), (4, 4, 4), 16):
        with pytest.raises(ValueError, match=r"grid must be .*whole numbers"):
            load(file, num_heads=2, grid=grid, tokenizer=codes)


def test_a_published_size_tells_its_heads_grid_and_sampling(tmp_path, monkeypatch, codes):
    official.shrink(monkeypatch, "llamagen_xl")
    monkeypatch.setattr(published, "tokenizer_of", lambda count: None)  # nothing comes from the hub here
    row = published.MODELS["llamagen-xl"]
    codes = official.tokenizer(row.tokenizer.vocab_size)
    state = official.state_of(official.generator(row))
    renamed = load(official.write(tmp_path / "mine.pt", state), tokenizer=codes)
    assert (renamed.generator.num_heads, renamed.generator.grid) == (2, (24, 24))
    assert renamed.sampling == Sampling(schedule="one-by-one", guidance=Guidance(1.75))
    assert renamed.class_names == [str(i) for i in range(1000)]  # it may be trained on something else
    named = load(official.write(tmp_path / row.file, state), tokenizer=codes)
    assert load(tmp_path / row.file, tokenizer=codes, grid=(2, 3)).generator.grid == (2, 3)
    named.save(tmp_path / "model")
    assert weights.read_config(tmp_path / "model")["class_names"] == "imagenet-1k"
    again = load(tmp_path / "model")
    assert (again.class_names, again.sampling) == (named.class_names, named.sampling)


def test_one_size_of_two_grids_is_told_by_the_name_of_the_file(tmp_path, monkeypatch):
    official.shrink(monkeypatch, "llamagen_b")
    row, codes = published.MODELS["llamagen-b-384"], official.tokenizer(16384)
    state = official.state_of(official.generator(row))
    for name, grid in ((row.file, (24, 24)), ("mine.pt", (16, 16))):
        assert load(official.write(tmp_path / name, state), tokenizer=codes).generator.grid == grid


# strictness -------------------------------------------------------------------------------------------------


def add(state):
    return state | {"surplus.weight": torch.ones(1)}


def one(state):
    """A name that every model's files have, or RAR's."""
    return "norm.weight" if "norm.weight" in state else "blocks.0.norm1.weight"


def drop(state):
    return {name: value for name, value in state.items() if name != one(state)}


def bend(state):
    return state | {one(state): torch.ones(5)}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (add, r"0 missing \(none\), 1 unexpected \(surplus.weight\)"),
        (drop, r"1 missing \(\S*norm1?.weight\), 0 unexpected \(none\)"),
        (bend, r"1 weights have the wrong shape: \S*norm1?.weight: \(5,\) for \(16,\)"),
    ],
)
def test_a_key_too_many_too_few_or_bent_is_refused(tmp_path, plain, codes, change, says):
    file = official.write(tmp_path / "a.pt", change(official.state_of(plain())), "model")
    with pytest.raises(
        ValueError, match=rf"a.pt looks like (ARPG|LPD|LlamaGen|RAR|RandAR) of width 16 .*, but .*{says}"
    ):
        load(file, tokenizer=codes, **TOLD)


def test_parts_of_a_stacked_matrix_are_checked_each(tmp_path, codes):
    state = official.state_of(tiny.model("arpg", GRID))
    key, value = "layers.self_dec.0.attn.to_{}.weight", torch.ones(8, 16)
    state |= {key.format("k"): value, key.format("v"): torch.ones(24, 16)}  # together as large as they should be
    with pytest.raises(ValueError, match=r"2 weights have the wrong shape: .*to_k.weight: \(8, 16\) for \(16, 16\)"):
        load(official.write(tmp_path / "a.pt", state), tokenizer=codes, **TOLD)


def test_only_what_is_known_to_be_unused_is_left_out(tmp_path, codes):
    table = {"freqs_cis": torch.zeros(7, 4, 2)}
    llamagen = official.state_of(tiny.model("llamagen", GRID))
    assert set(table) < set(llamagen)
    load(official.write(tmp_path / "llamagen.pt", llamagen), tokenizer=codes, **TOLD)
    for name in ("arpg", "randar"):
        state = official.state_of(tiny.model(name, GRID)) | table
        with pytest.raises(ValueError, match=r"1 unexpected \(freqs_cis\)"):
            load(official.write(tmp_path / f"{name}.pt", state), tokenizer=codes, **TOLD)


def test_one_for_the_other_is_refused_and_named(tmp_path, codes):
    vq = official.write(tmp_path / "vq.pt", official.state_of(codes), "model")
    with pytest.raises(ValueError, match=r"vq.pt looks like LlamaGen's VQ tokenizer .*: open it with .*load_tokenizer"):
        load(vq)
    arpg = official.write(tmp_path / "arpg.pt", official.state_of(tiny.model("arpg")))
    with pytest.raises(ValueError, match=r"arpg.pt looks like ARPG .* no tokenizer: open it with randfeat.load"):
        load_tokenizer(arpg)
    other = official.write(tmp_path / "other.pt", {"encoder.weight": torch.ones(2)})
    for opens in (load, load_tokenizer):
        with pytest.raises(ValueError, match=r"other.pt cannot be opened: this looks like no model .* encoder.weight"):
            opens(other)


# directories ------------------------------------------------------------------------------------------------


def test_what_a_directory_says_is_not_told_again(tmp_path, codes):
    Pipeline(codes, tiny.model("randar", GRID)).save(tmp_path / "model")
    for told in ({"num_heads": 2}, {"grid": GRID}, {"tokenizer": codes}):
        with pytest.raises(ValueError, match="model says its num_heads, grid and tokenizer itself: leave them out"):
            load(tmp_path / "model", **told)


def test_a_file_of_a_directory_is_not_the_model(tmp_path, codes):
    Pipeline(codes, tiny.model("randar", GRID)).save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"safetensors cannot be opened: .* part of a model directory: open that"):
        load(tmp_path / "model" / "model.safetensors")


def test_an_opened_model_is_saved_over_itself(tmp_path, codes):
    Pipeline(codes, tiny.model("arpg", GRID)).save(tmp_path / "model")
    opened = load(tmp_path / "model")
    with torch.no_grad():
        opened.generator.head.weight.add_(1)  # ours alone: the file keeps its own
    assert not same(load(tmp_path / "model"), opened)
    opened.save(tmp_path / "model")
    assert same(load(tmp_path / "model"), opened)


def test_from_pretrained_is_load_and_save_pretrained_is_save(tmp_path, codes):
    made = Pipeline(codes, tiny.model("arpg", GRID), sampling=Sampling(5, "arccos"))
    made.save_pretrained(tmp_path / "model")
    again = Pipeline.from_pretrained(tmp_path / "model", dtype=torch.float64)
    assert again.sampling == made.sampling
    assert again.generator.head.weight.dtype == torch.float64


# memory, types and devices ----------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_generator_is_converted_and_the_tokenizer_never(tmp_path, plain, codes, stored, dtype):
    state = {name: value.to(stored) for name, value in official.state_of(plain()).items()}
    halved = {name: value.to(stored) for name, value in official.state_of(codes).items()}
    file, vq = (
        official.write(tmp_path / name, content)
        for name, content in (("a.safetensors", state), ("vq.safetensors", halved))
    )
    opened = load(file, tokenizer=vq, dtype=dtype, **TOLD)
    opened.save(tmp_path / "model")
    for one in (opened, load(tmp_path / "model", dtype=dtype)):
        assert {p.dtype for p in one.generator.parameters()} == {dtype}
        assert {p.dtype for p in one.tokenizer.parameters()} == {torch.float32}
        images = one.sample([0, None], Sampling(tiny.steps(one.generator, 2)))
        assert images.shape == (2, 3, 32, 48)
        assert one.features(images, "raster/causal/token/L1/mean/mean").dtype == "float32"
    with pytest.raises(ValueError, match=r"weights cannot be torch.int8: give a floating-point torch.dtype"):
        load(file, dtype=torch.int8)


def test_nothing_is_drawn_at_random(tmp_path, plain, codes, monkeypatch):
    file = official.write(tmp_path / "a.safetensors", official.state_of(plain()))
    Pipeline(codes, plain()).save(tmp_path / "model")
    before, drawn = torch.get_rng_state(), torch.nn.init.normal_

    def draw(tensor, *args, **kwargs):
        assert tensor.is_meta
        return drawn(tensor, *args, **kwargs)

    monkeypatch.setattr(torch.nn.init, "normal_", draw)
    load(file, tokenizer=codes, **TOLD)
    load(tmp_path / "model")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_what_needs_no_change_is_not_copied(tmp_path, codes, monkeypatch, suffix):
    """The weights lie where the file is mapped."""
    seen, read = [], checkpoints.read
    monkeypatch.setattr(checkpoints, "read", lambda path: seen.append(read(path)) or seen[-1])
    made = tiny.model("randar", GRID)
    opened = load(official.write(tmp_path / f"a{suffix}", official.state_of(made)), tokenizer=codes, **TOLD)
    names = {ours: theirs for ours, (theirs,) in made.official_names.items() if "*" not in ours}
    assert len(names) == 5
    for ours, theirs in names.items():
        assert opened.generator.get_parameter(ours).data_ptr() == seen[0].state[theirs].data_ptr()


def test_a_device_is_that_of_both_parts(tmp_path, codes):
    file = official.write(tmp_path / "a.pt", official.state_of(tiny.model("arpg", GRID)))
    vq = official.write(tmp_path / "vq.pt", official.state_of(codes))
    moved = load(file, tokenizer=vq, device="meta", **TOLD)
    assert {p.device.type for p in moved.parameters()} == {"meta"}


# names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "error", "says"),
    [
        ("missing.pt", FileNotFoundError, "there is no file or directory missing.pt"),
        ("run/missing.safetensors", FileNotFoundError, "there is no file or directory run/missing.safetensors"),
        ("demo/models/randar", FileNotFoundError, "there is no file or directory demo/models/randar"),
        ("./model", FileNotFoundError, r"there is no file or directory ./model: check the path"),
        ("/model", FileNotFoundError, "there is no file or directory /model"),
        ("arpg_l", ValueError, "the short names are fashion-arpg-free, .*, randar-l-llama.*: did you mean arpg-l?"),
        ("RandAR-XL", ValueError, "did you mean randar-xl-llamagen?"),
        ("gan", ValueError, "'gan' is no path here and no owner/name on the hub, and the short names are fashion-a"),
        ("owner/na me", FileNotFoundError, "there is no file or directory owner/na me"),
        ("hp-l33/ARPG", ValueError, "holds official files: give the short name of one, arpg-l, arpg-xl, arpg-xxl"),
        ("FoundationVision/LlamaGen", ValueError, "short name of one, llamagen-b, .*llamagen-vq16, llamagen-vq8"),
    ],
)
def test_what_is_nothing_is_refused(source, error, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=says):
        load(source)


def test_the_names_of_tokenizers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"short names are .*, llamagen-vq16, .*, maskgit-vq: did you mean llamagen-v"):
        load_tokenizer("llamagen_vq")


def test_what_lies_here_goes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tokenizer = PatchTokenizer(7, 2, 1)
    Pipeline(tokenizer, tiny.model("randar", GRID)).save("arpg-l")
    assert load("arpg-l").generator.grid == GRID
    assert load_tokenizer("arpg-l").config == tokenizer.config


# recorded outputs -------------------------------------------------------------------------------------------


@needs_golden
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("path", cases("teacher_forced"))
def test_a_recorded_model_in_a_file_gives_the_recorded_logits(path, suffix, tmp_path):
    case, tensors = load_case(path)
    state = official_state(tensors)
    wanted = keywords(case["family"], case["config"], state)
    opened = load(
        official.write(tmp_path / f"official{suffix}", state, "model"),
        num_heads=wanted["num_heads"],
        # learned positions say how many there are
        grid=None if case["family"] in ("lpd", "rar") else wanted["grid"],
        tokenizer=official.tokenizer(wanted["vocab_size"], stride=2),
    )
    assert (
        opened.generator.config.items()
        >= {name: wanted[name] for name in ("ffn_dim", "norm_eps") if name in wanted}.items()
    )
    assert (opened.generator.grid, opened.generator.rope_base) == (wanted["grid"], wanted.get("rope_base", 10000))
    tokens, label, order = tensors["in.idx"], tensors["in.cond"], recorded_order(opened.generator, tensors)
    causal = case["family"] != "arpg" or case["mode"] == "train"
    forward = opened.generator if causal else partial(unmasked_arpg, opened.generator)
    if case["family"] == "lpd":
        states = opened.generator.pre_logits(tokens, label, order, sizes=case["params"]["group_sizes"])
        logits = opened.generator.head(states)
    else:
        logits = forward(tokens, label, order)
    close(logits, tensors.get("out.logits", tensors.get("out.token_logits")), case)


@needs_golden
@pytest.mark.parametrize("path", cases("tokenizer"))
def test_a_recorded_tokenizer_in_a_file_gives_the_recorded_tokens(path, tmp_path):
    case, tensors = load_case(path)
    said = {"l2_norm": case["config"]["codebook_l2_norm"]} if "codebook_l2_norm" in case["config"] else {}
    opened = load_tokenizer(official.write(tmp_path / "vq.bin", official_state(tensors)), **said)
    low = -1 if case["family"] == "vq" else 0
    sizes = [key.removeprefix("in.image") for key in tensors if key.startswith("in.image")]
    assert sizes
    with torch.no_grad():
        for size in sizes:
            found = opened.encode((tensors[f"in.image{size}"] - low) / (1 - low))
            assert torch.equal(found.flatten(1), tensors[f"out.indices{size}"])


def test_the_state_that_is_read_is_the_state_that_was_written(tmp_path, build_official):
    made = build_official()
    official_state = weights.to_official(made)
    with torch.device("meta"):
        empty = build_official()
    again = weights.from_official(empty, official_state)
    assert all(torch.equal(again[name], value) for name, value in made.state_dict().items())


def test_a_name_of_the_other_kind_is_told_apart():
    with pytest.raises(ValueError, match=r"llamagen-vq16 is a tokenizer: open it with randfeat.load_tokenizer"):
        load("llamagen-vq16")
    with pytest.raises(ValueError, match=r"arpg-l is a model: open it with randfeat.load"):
        load_tokenizer("arpg-l")


def test_a_model_without_its_tokenizer_is_not_whole(tmp_path, codes):
    Pipeline(codes, tiny.model("arpg", GRID)).save(tmp_path / "model")
    shutil.rmtree(tmp_path / "model" / "tokenizer")
    with pytest.raises(FileNotFoundError, match="model has no folder tokenizer: copy the whole directory again"):
        load(tmp_path / "model")


def test_whole_numbers_are_no_weights(tmp_path, codes):
    state = {name: value.to(torch.int8) for name, value in official.state_of(tiny.model("arpg", GRID)).items()}
    file = official.write(tmp_path / "a.pt", state)
    with pytest.raises(ValueError, match=r"a.pt: .* is torch.int8, expected floating-point weights"):
        load(file, tokenizer=codes, **TOLD)
