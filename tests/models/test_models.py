"""The promises of every generator, over all that are registered: reading."""

import pytest
import tiny
import torch
from naive import read as naive_read

from randfeat.models import MODELS, SIZES, base, create, name_of, orders

CAN_READ = {
    "arpg": (("causal", "echo", "full", "after"), ("token", "query")),
    "arpg_positioned": (("causal", "echo", "full", "after"), ("token", "query")),
    "llamagen": (("causal", "echo", "full"), ("token",)),
    "lpd": (("causal", "echo", "full", "after"), ("token", "query")),
    "randar": (("causal", "echo", "full", "after", "bare"), ("token", "query")),
    "rar": (("causal", "echo", "full"), ("token",)),
}
of_every_reading = pytest.mark.parametrize(
    ("model", "context", "stream"), tiny.readings(tiny.EVERY), indirect=["model"]
)


def everything(model, tokens, label, order, context, stream):
    return torch.stack(model.hidden(tokens, label, order, range(1, model.depth + 1), context, stream))


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_a_token_reaches_the_later_logits_and_no_other(model, training):
    model.train(training)
    tokens, label, order = tiny.batch(model)
    logits = model(tokens, label, order)
    assert logits.shape == (3, model.num_tokens, model.vocab_size)
    for j in range(model.num_tokens):
        other = model(tiny.changed(model, tokens, order[:, j : j + 1]), label, order)
        assert torch.equal(other[:, : j + 1], logits[:, : j + 1])
        assert (other[:, j + 1 :] != logits[:, j + 1 :]).any(-1).all()
    assert (model(tokens, (label + 1) % 4, order) != logits).any(-1).all()  # the class reaches them all


def test_no_label_is_the_null_class(model):
    tokens, _, order = tiny.batch(model)
    null = torch.full((3,), model.num_classes)
    assert torch.equal(model(tokens, None, order), model(tokens, null, order))
    assert torch.equal(
        everything(model, tokens, None, order, "echo", model.streams[-1]),
        everything(model, tokens, null, order, "echo", model.streams[-1]),
    )


def test_dropout_acts_in_training_only(build):
    model = build(dropout=0.5)
    tokens, label, order = tiny.batch(model)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        read = [model.train(training)(tokens, label, order) for training in (True, True, False, False)]
    assert not torch.equal(read[0], read[1])
    assert torch.equal(read[2], read[3])


def test_the_head_is_zero_at_first_unless_published_otherwise(build):
    model = create(name_of(build()), **build().config)
    assert model(*tiny.batch(model)).any() != model.zero_head
    assert {name for name, cls in MODELS.items() if not cls.zero_head} == {"lpd", "rar"}


def test_config_makes_the_same_model(model):
    again = create(name_of(model), **model.config)
    again.load_state_dict(model.state_dict())
    assert again.config == model.config
    assert torch.equal(again(*tiny.batch(model)), model(*tiny.batch(model)))


def test_a_cast_to_bfloat16_keeps_the_rotation_in_single_precision(model):
    assert not list(model.buffers())  # a table among them would be rounded
    logits = model(*tiny.batch(model))
    rounded = model.bfloat16()(*tiny.batch(model))
    assert rounded.dtype == torch.bfloat16
    if model.rotary:
        assert model.rope(model.device).dtype == torch.complex64
    assert (rounded - logits).abs().mean() < 0.1 * logits.std()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(num_heads=3), "embed_dim 16 over num_heads 3 must be a whole number"),
        (dict(num_heads=4, num_kv_heads=3), "num_heads 4 must be a multiple of num_kv_heads 3"),
    ],
)
@pytest.mark.parametrize("name", MODELS)
def test_impossible_heads_are_refused(name, wrong, message):
    with pytest.raises(ValueError, match=message):
        tiny.model(name, **wrong)


@pytest.mark.parametrize("name", MODELS)
def test_heads_of_rotations_have_pairs_of_pairs_of_channels(name):
    if MODELS[name].rotary:
        with pytest.raises(ValueError, match="embed_dim 16 over num_heads 8 must be a whole number divisible by 4"):
            tiny.model(name, num_heads=8)
    else:
        assert tiny.model(name, num_heads=8).num_heads == 8


@pytest.mark.parametrize("name", ["arpg", "arpg_positioned", "lpd", "rar"])
def test_shared_key_value_heads_are_refused(name):
    with pytest.raises(ValueError, match="has no grouped-query attention: leave num_kv_heads out"):
        tiny.model(name, num_kv_heads=1)


@pytest.mark.parametrize("name", [name for name, cls in MODELS.items() if not cls.rotary])
def test_learned_positions_know_no_other_grid(name):
    model = tiny.model(name)
    with pytest.raises(ValueError, match="has learned positions of its own grid, and knows no other"):
        model.start(torch.tensor([0]), table=torch.zeros(25, 4))


def test_an_unknown_model_is_refused():
    with pytest.raises(
        ValueError, match="unknown model 'maskgit', expected one of arpg, arpg_positioned, llamagen, lpd, randar, rar"
    ):
        create("maskgit")


@pytest.mark.parametrize("grid", [(2, 3), (3, 2)])
def test_a_raster_model_refuses_every_other_order(grid):
    model = tiny.model("llamagen", grid)
    tokens, label, order = tiny.batch(model)
    model(tokens, label, order)
    for other in (order.flip(1), orders.columns(grid).expand(3, -1), torch.cat((order[:2], order[2:].flip(1)))):
        with pytest.raises(ValueError, match="LlamaGen knows one order, raster: another one was given"):
            model(tokens, label, other)
        with pytest.raises(ValueError, match="LlamaGen knows one order, raster"):
            model.hidden(tokens, label, other, [1])
    with pytest.raises(ValueError, match="order 'columns' is none of LlamaGen's: raster"):
        model.check_order_mode("columns")
    modes = [tiny.model(name).check_order_mode(None) for name in CAN_READ]
    assert modes == ["random", "random", "raster", "random", "random", "raster"]


def test_published_sizes_make_their_model():
    small = dict(grid=(2, 3), vocab_size=7, num_classes=3)
    made = create("llamagen_b", **small, depth=1, ffn_dim=8)  # what is given goes first
    assert (name_of(made), made.embed_dim, made.num_heads, made.depth) == ("llamagen", 768, 12, 1)
    assert (
        {name.split("_")[0] for name in SIZES}
        == {model for model, _ in SIZES.values()}
        == {*MODELS} - {"arpg_positioned"}
    )


@pytest.mark.parametrize("name", ["arpg", "arpg_positioned"])
def test_what_arpg_predicts_first_depends_on_the_position_only_where_queries_begin_with_it(name):
    model = tiny.model(name)
    tokens, label, order = tiny.batch(model, 1)
    first = [model(tokens, label, order.roll(shift, 1))[:, 0] for shift in range(model.num_tokens)]
    same = [torch.allclose(first[0], one, atol=1e-6) for one in first[1:]]
    assert same == [name == "arpg"] * (model.num_tokens - 1)


# hidden states ----------------------------------------------------------------------------------------------


def reaches(model, context, stream):
    """bool (depth, N, N): whether the state at place i of the order changes with the token at place j."""
    tokens, label, order = tiny.batch(model)
    states = everything(model, tokens, label, order, context, stream)
    result = torch.empty(model.depth, model.num_tokens, model.num_tokens, dtype=torch.bool)
    for j in range(model.num_tokens):
        other = everything(model, tiny.changed(model, tokens, order[:, j : j + 1]), label, order, context, stream)
        moved = torch.stack([orders.gather(m.any(-1), order) for m in other != states])  # (depth, B, N)
        assert (moved == moved[:, :1]).all()
        result[:, :, j] = moved[:, 0]
    return result


def test_what_each_model_can_read():
    assert {name: (cls.contexts, cls.streams) for name, cls in MODELS.items()} == CAN_READ


@of_every_reading
def test_what_a_state_has_seen(model, context, stream):
    seen = torch.ones(model.num_tokens, model.num_tokens, dtype=torch.bool)
    if context == "causal":
        seen = seen.tril(0 if stream == "token" else -1)  # not even its own token, which it is to predict
    assert (reaches(model, context, stream) == seen).all()


@pytest.mark.parametrize(("model", "context", "stream"), tiny.readings(tiny.EVERY, "full"), indirect=["model"])
def test_states_are_those_of_the_naive_reading(model, context, stream):
    tokens, label, order = tiny.batch(model)
    read = orders.gather(tokens, order)
    states = everything(model, tokens, label, order, context, stream)
    for i in range(model.num_tokens):  # each place by itself, so a query cannot have seen another one
        ahead = i if stream == "query" else i + 1
        past = {"causal": [slice(ahead)], "echo": [slice(None), slice(ahead)]}.get(context, [slice(None)])
        was_read, at = (torch.cat([x[:, part] for part in past], 1) for x in (read, order))
        asked = order[:, i + 1 : i + 2] if model.target_aware else order[:, i : i + 1]
        naive = naive_read(model, label, was_read, at, asked, bare=context == "bare")
        expected = torch.stack([s.reshape(len(tokens), -1) for s in getattr(naive, stream)])
        actual = states[:, torch.arange(len(tokens)), order[:, i]]
        torch.testing.assert_close(actual.double(), expected, atol=1e-5, rtol=1e-4)


def test_token_states_with_the_mask_off_are_those_of_the_naive_reading(model):
    tokens, label, order = tiny.batch(model)
    read, states = orders.gather(tokens, order), everything(model, tokens, label, order, "full", "token")
    # where nothing is masked the place in the sequence is no matter: each comes last, unless a place has its own vector
    for i in range(model.num_tokens - 1 if model.target_aware else 0, model.num_tokens):
        was_read, at = read.roll(-1 - i, 1), order.roll(-1 - i, 1)
        naive = naive_read(model, label, was_read, at, order[:, :0], full=True).token
        actual = states[:, torch.arange(len(tokens)), order[:, i]]
        torch.testing.assert_close(actual.double(), torch.stack(naive), atol=1e-5, rtol=1e-4)


def test_states_of_a_target_aware_model_depend_on_the_next_position():
    model = tiny.model("rar")
    assert model.target_aware
    tokens, label, order = tiny.batch(model)
    other = order[:, [0, 1, 2, 3, 5, 4]]
    for context, same in (("causal", 3), ("echo", 0), ("full", 0)):
        states, changed = (everything(model, tokens, label, one, context, "token") for one in (order, other))
        moved = [orders.gather(m.any(-1), order) for m in states != changed]
        assert not any(m[:, :same].any() for m in moved)
        assert all(m[:, same:].all() for m in moved)  # place 3 sees the same tokens, and is told another position


@pytest.mark.parametrize("model", tiny.ORDERLESS, indirect=True, ids=tiny.name)
@pytest.mark.parametrize("stream", ["token", "query"])
def test_full_context_knows_no_order(model, stream):
    tokens, label, order = tiny.batch(model)
    torch.testing.assert_close(
        everything(model, tokens, label, order, "full", stream),
        everything(model, tokens, label, order.flip(1), "full", stream),
        atol=1e-5,
        rtol=1e-4,
    )


def test_the_last_causal_states_give_the_logits(model):
    tokens, label, order = tiny.batch(model)
    (state,) = model.hidden(tokens, label, order, [model.depth], "causal", model.streams[-1])
    state, expected = orders.gather(state, order), model(tokens, label, order)
    if model.target_aware:  # whose final norm is shifted and scaled by class and place, cls and class being 0 and 1
        places = torch.arange(2, 2 + model.num_tokens)
        made = model.head(model.normed(state, model._vector(model._class(label), places)))
    else:
        made = model.head(model.norm(state))
    if model.streams == ("token",):  # a token's state predicts the next one
        made, expected = made[:, :-1], expected[:, 1:]
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=1e-4)


@of_every_reading
def test_layers_come_as_asked_whatever_else_is_asked(model, context, stream):
    arguments = (*tiny.batch(model),)
    first, second = everything(model, *arguments, context, stream)
    for layers, expected in (([1], [first]), ([2], [second]), ((2, 1, 2), [second, first, second])):
        states = model.hidden(*arguments, layers, context, stream)
        assert len(states) == len(expected)
        for state, whole in zip(states, expected, strict=True):  # of the deepest block only these rows were computed
            torch.testing.assert_close(state, whole, atol=1e-5, rtol=1e-5)


@of_every_reading
def test_parts_of_a_batch_are_read_as_the_batch(model, context, stream, monkeypatch):
    arguments, read, sizes = tiny.batch(model, 5), model.states, []
    expected = everything(model, *arguments, context, stream)
    monkeypatch.setattr(base, "BYTES_AT_ONCE", 2 * 4 * 16 * model.num_tokens * model.inputs_per_token)
    monkeypatch.setattr(model, "states", lambda tokens, *rest: sizes.append(len(tokens)) or read(tokens, *rest))
    torch.testing.assert_close(everything(model, *arguments, context, stream), expected, atol=1e-5, rtol=1e-5)
    assert sizes == [2, 2, 1]


@pytest.mark.parametrize(("build", "context", "stream"), tiny.readings(tiny.VARIANTS), indirect=["build"])
def test_nothing_deeper_than_asked_for_is_computed(build, context, stream):
    model = build(depth=4)
    blocks = [*model.blocks, *getattr(model, "cross_blocks", [])]
    ran = []
    for module in (*blocks, model.head):
        module.register_forward_hook(lambda module, *_: ran.append(module))
    model.hidden(*tiny.batch(model), [1, 2], context, stream)
    of_the_stream = model.blocks if stream == "token" else blocks[-4:]
    before = [] if stream == "token" else blocks[:-4]
    assert ran == [*before, *of_the_stream[:2]]


@pytest.mark.parametrize("context", ["causal", "echo", "full"])
def test_arpg_token_states_need_nothing_of_the_second_pass(context):
    model, ran = tiny.model("arpg"), []
    for module in (model.kv_norm, model.kv, *model.cross_blocks, model.norm, model.head):
        module.register_forward_hook(lambda module, *_: ran.append(module))
    model.hidden(*tiny.batch(model), [2], context, "token")
    assert not ran
    model.hidden(*tiny.batch(model), [2], context, "query")
    assert ran == [model.kv_norm, model.kv, *model.cross_blocks]


@pytest.mark.parametrize(
    ("layers", "context", "stream", "message"),
    [
        ([0, 1], "causal", "token", r"layers are numbered 1 to 2, got \[0, 1\]"),
        ([1, 3], "causal", "token", r"layers are numbered 1 to 2, got \[1, 3\]"),
        ([], "causal", "token", r"got \[\]"),
        ([1], "sideways", "token", "context 'sideways' is none of .*: causal, echo, full"),
        ([1], "causal", "pixels", "stream 'pixels' is none of .*: token"),
        (
            [1],
            "after",
            "token",
            "context 'after' (has no token stream|is none of (LlamaGen|RAR)'s: causal, echo, full)",
        ),
    ],
)
def test_impossible_readings_are_refused(build, layers, context, stream, message):
    with pytest.raises(ValueError, match=message):
        build().hidden(*tiny.batch(build()), layers, context, stream)


def test_a_raster_model_has_no_query_stream():
    model = tiny.model("llamagen")
    with pytest.raises(ValueError, match="stream 'query' is none of LlamaGen's: token"):
        model.hidden(*tiny.batch(model), [1], "causal", "query")
    with pytest.raises(ValueError, match="context 'after' is none of LlamaGen's: causal, echo, full"):
        model.hidden(*tiny.batch(model), [1], "after", "query")
