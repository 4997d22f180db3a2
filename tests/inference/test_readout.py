import re
from typing import get_args

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from randfeat.inference.readout import FeatureSpec, check, pass_order, read
from randfeat.models import Context, orders
from randfeat.utils import rng

# specs ------------------------------------------------------------------------------------------------------

NUMBERS = st.integers(1, 99)
PASSES = st.sampled_from(["raster", "reversed", "columns", "hierarchical", "random", "random:per-image"]) | st.builds(
    "random*{}{}{}".format,
    NUMBERS,
    st.just("") | NUMBERS.map("@{}".format),
    st.sampled_from(["", ":per-image"]),
)
PASSES |= st.permutations(range(4)).map(lambda order: str(order).replace(" ", ""))
LAYERS = NUMBERS | NUMBERS.map(int.__neg__) | st.floats(0.0001, 0.9999)
SPECS = st.builds(
    FeatureSpec,
    orders=st.lists(PASSES, min_size=1, max_size=3).map("+".join),
    context=st.sampled_from(get_args(Context)),
    stream=st.sampled_from(["token", "query"]),
    layers=st.lists(LAYERS, min_size=1, max_size=3).map(tuple),
    pool=st.sampled_from(["mean", "max", "last", "none"]) | NUMBERS.map("grid{}".format),
    merge=st.sampled_from(["mean", "concat"]),
    label=st.none() | st.integers(0, 999),
    shifts=st.integers(1, 99),
)


@given(SPECS)
def test_a_spec_prints_what_it_parses(spec):
    assert FeatureSpec.parse(str(spec)) == spec
    assert FeatureSpec.parse(spec) is spec
    assert len({spec, FeatureSpec.parse(f" {spec}\n")}) == 1  # hashable, and stray space is no matter


def test_a_spec_by_hand():
    spec = FeatureSpec.parse("raster+random*2@7:per-image/echo/query/L6,L12/grid2/concat/label3")
    assert spec == FeatureSpec("raster+random*2@7:per-image", "echo", "query", (6, 12), "grid2", "concat", 3)
    raster, *random = spec.passes
    assert (raster.mode, [p.mode for p in random]) == ("raster", ["random", "random"])
    assert [p.seed for p in random] == [(7, 0), (7, 1)]
    assert [p.per_image for p in spec.passes] == [False, True, True]


def test_bidirectional_is_short_for_both_directions():
    spec = FeatureSpec.parse("columns+bidirectional/causal/token/L1/mean/mean")
    assert str(spec) == "columns+raster+reversed/causal/token/L1/mean/mean"
    assert [reading.mode for reading in spec.passes] == ["columns", "raster", "reversed"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("raster/causal/token/L1/mean", "has 5 parts, expected orders/context"),
        ("raster/causal/token/L1/mean/mean/label1/shifts2/x", "has 9 parts"),
        ("raster/causal/token/L1/mean/mean/label1/x", "ends in a label and shifts, such as label3/shifts2"),
        ("raster/causal/token/L1/mean/mean/shifts2/label1", "label .shifts2. in a feature spec is written label3"),
        ("raster/causal/token/L1/mean/mean/shiftsX", "ends in a label and shifts"),
        ("raster/causal/token/L1/mean/mean/shifts0", "shifts are counted from 1, as the image stands, got 0"),
        ("spiral/causal/token/L1/mean/mean", "order 'spiral' is none of raster, "),
        ("raster+/causal/token/L1/mean/mean", "order '' is none of"),
        ("raster*2/causal/token/L1/mean/mean", r"order 'raster\*2': only random takes a count"),
        ("random*0/causal/token/L1/mean/mean", "at least one order is read"),
        ("random*00/causal/token/L1/mean/mean", "at least one order is read"),
        ("raster/sideways/token/L1/mean/mean", "context 'sideways' is none of causal, echo, full, after"),
        ("raster/causal/pixel/L1/mean/mean", "stream 'pixel' is none of token, query"),
        ("raster/causal/token/1/mean/mean", "layers '1' in a feature spec are written L6"),
        ("raster/causal/token/L0/mean/mean", "a layer is a number from 1, from the end as -1, or a share .*, got 0"),
        ("raster/causal/token/L0.0/mean/mean", "a layer is a number from 1, from the end as -1, .*, got 0.0"),
        ("raster/causal/token/L1.0/mean/mean", "layers 'L1.0' in a feature spec are written L6"),
        ("random*10000/causal/token/L1/mean/mean", r"order 'random\*10000': at most 9999 orders are read"),
        ("[0,1/causal/token/L1/mean/mean", r"order '\[0,1' is none of"),
        ("raster/causal/token/L1/grid0/mean", "pool 'grid0' is none of"),
        ("raster/causal/token/L1/median/mean", "pool 'median' is none of"),
        ("raster/causal/token/L1/mean/sum", "merge 'sum' is none of mean, concat"),
        ("raster/causal/token/L1/mean/mean/3", "label '3' in a feature spec is written label3"),
    ],
)
def test_a_wrong_spec_is_refused_by_its_part(text, message):
    with pytest.raises(ValueError, match=message):
        FeatureSpec.parse(text)


def test_a_spec_is_text():
    for wrong in (None, 3, ["raster/causal/token/L1/mean/mean"]):
        with pytest.raises(ValueError, match="a feature spec is one line of text"):
            FeatureSpec.parse(wrong)


def test_a_spec_holds_no_value_that_it_cannot_print():
    with pytest.raises(ValueError, match="a label is a class index from 0, got -1"):
        FeatureSpec(label=-1)
    with pytest.raises(ValueError, match="reads one layer at least"):
        FeatureSpec(layers=())


def test_layers_may_be_counted_from_the_end_or_as_a_share_of_the_depth():
    spec = FeatureSpec.parse("raster/causal/token/L-1,L0.5,L0.04,L3/mean/mean")
    assert spec.layers == (-1, 0.5, 0.04, 3)
    assert spec.resolved(12).layers == (12, 6, 1, 3)
    assert str(FeatureSpec().resolved(24)) == "raster/causal/token/L12/mean/mean"
    for layer in ("L13", "L-13"):
        with pytest.raises(ValueError, match=f"{layer}/mean/mean: layers are numbered 1 to 12"):
            FeatureSpec.parse(f"raster/causal/token/{layer}/mean/mean").resolved(12)
    with pytest.raises(ValueError, match=r"a layer is a number .* got True"):
        FeatureSpec(layers=(True,))


# reading ----------------------------------------------------------------------------------------------------

DENSE = FeatureSpec("raster", "causal", "token", (2,), "none")


def spelled(model, text):
    """The spec; for a model of raster order alone one of as many raster passes, for one without queries of tokens."""
    if model.raster_only:
        random = r"random(\*(\d))?(@\d)?(:per-image)?"
        text = re.sub(random, lambda match: "+".join(["raster"] * int(match[2] or 1)), text).replace(
            "columns", "raster"
        )
    if "query" in model.streams:
        return text
    for query, token in (("causal/query", "echo/token"), ("after/query", "full/token"), ("/query", "/token")):
        text = text.replace(query, token)
    return text


def one(model, tokens, text, **kwargs):
    return read(model, tokens, [FeatureSpec.parse(spelled(model, text))], **kwargs)[0]


def order_of(model, mode, *seed):
    """The order that `spelled` names, the same for three images."""
    return orders.make("raster" if model.raster_only else mode, model.grid, rng.derive(*seed).expand(3))


def test_a_dense_map_is_the_hidden_state(model):
    tokens = tiny.batch(model)[0]
    (state,) = model.hidden(tokens, None, order_of(model, "columns"), [2], "echo", model.streams[-1])
    dense = one(model, tokens, "columns/echo/query/L2/none/mean")
    assert dense.shape == (3, model.embed_dim, *model.grid)
    assert not dense.requires_grad
    assert torch.equal(dense.flatten(2).transpose(1, 2), state)


def test_pooling_by_hand(model):
    tokens, (rows, columns) = tiny.batch(model)[0], model.grid
    dense = one(model, tokens, "columns/causal/token/L2/none/mean")

    def pooled(how):
        return one(model, tokens, f"columns/causal/token/L2/{how}/mean")

    torch.testing.assert_close(pooled("mean"), dense.sum((2, 3)) / (rows * columns))
    assert torch.equal(pooled("max"), dense.flatten(2).max(2).values)
    assert torch.equal(pooled("last"), dense[:, :, rows - 1, columns - 1])  # where the order ends
    torch.testing.assert_close(pooled("grid1"), pooled("mean"))
    # cells overlap where the grid does not divide
    halves = [(slice(0, -(-n // 2)), slice(n // 2, None)) for n in (rows, columns)]
    cells = torch.stack([dense[:, :, r, c].mean((2, 3)) for r in halves[0] for c in halves[1]], 2)
    torch.testing.assert_close(pooled("grid2"), cells.flatten(1))
    with pytest.raises(ValueError, match=f"pool grid4 asks for more cells than the {rows} x {columns} grid"):
        pooled("grid4")


@pytest.mark.parametrize("model", tiny.ANY_ORDER, indirect=True, ids=tiny.name)
def test_last_is_where_each_order_ends(model):
    tokens = tiny.batch(model)[0]
    order = orders.random(model.grid, rng.derive(0, 0)).expand(3, -1)
    (state,) = model.hidden(tokens, None, order, [1])
    assert torch.equal(one(model, tokens, "random/causal/token/L1/last/mean"), state[:, order[0, -1]])


def test_passes_and_layers_are_merged(model):
    tokens = tiny.batch(model)[0]
    readings = []
    for k in range(2):
        order = order_of(model, "random", 7, k)  # the same for every image
        readings += [state.mean(1) for state in model.hidden(tokens, None, order, [2, 1])]
    read_out = torch.stack([readings[0], readings[2], readings[1], readings[3]])  # layer by layer, then pass by pass
    mean = one(model, tokens, "random*2@7/causal/token/L2,L1/mean/mean")
    torch.testing.assert_close(mean, read_out.mean(0), atol=1e-5, rtol=1e-5)
    joined = one(model, tokens, "random*2@7/causal/token/L2,L1/mean/concat")
    torch.testing.assert_close(joined, torch.cat(list(read_out), 1), atol=1e-5, rtol=1e-5)
    dense = one(model, tokens, "random*2@7/causal/token/L2,L1/none/concat")
    torch.testing.assert_close(dense.mean((2, 3)), joined, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_a_feature_does_not_depend_on_its_batch(model, dtype, tolerance):
    """Equal up to rounding: another batch size is another matrix product. bfloat16 keeps 8 bits."""
    model, tokens = model.to(dtype), tiny.batch(model, 7)[0]
    for text in (
        "random*3/causal/token/L2/mean/concat",
        "random*2:per-image/echo/query/L1/none/mean",
        "raster/after/query/L2/max/mean",
    ):
        together = one(model, tokens, text)
        scale = together.abs().mean().item()
        for alone in (one(model, tokens[3:5], text), one(model, tokens, text, batch_size=1)[3:5]):
            torch.testing.assert_close(alone, together[3:5], atol=tolerance * scale, rtol=tolerance)
        assert together.dtype == torch.float32


def test_an_order_per_image_is_a_function_of_the_image(model):
    tokens = tiny.batch(model, 8)[0]
    tokens[7] = tokens[2]
    (reading,) = FeatureSpec("random:per-image").passes
    order = pass_order(reading, model, tokens)
    orders.validate(order, model.grid)
    assert len(order[:7].unique(dim=0)) == 7
    assert torch.equal(order[7], order[2])
    assert torch.equal(pass_order(reading, model, tokens[[5, 1]]), order[[5, 1]])
    (shared,) = FeatureSpec("random").passes
    assert len(pass_order(shared, model, tokens).unique(dim=0)) == 1


def test_several_specs_share_calls_and_change_nothing(model, monkeypatch):
    tokens, calls, hidden = tiny.batch(model, 4)[0], [], model.hidden

    def counting(tokens, label, order, layers, *args):
        calls.append((len(tokens), list(layers)))
        return hidden(tokens, label, order, layers, *args)

    texts = [
        "random*3/causal/token/L2/mean/mean",
        "raster/causal/query/L1/max/mean",
        "random*3/causal/token/L1,L2/grid2/concat",  # as the first but for layers, pool and merge
        "random*3/causal/token/L2/mean/mean/label1",
    ]
    texts = [spelled(model, text) for text in texts]
    separate = [one(model, tokens, text) for text in texts]
    monkeypatch.setattr(model, "hidden", counting)
    together = read(model, tokens, [FeatureSpec.parse(text) for text in texts])
    # the three passes over four images are one batch of twelve
    assert calls == [(12, [1, 2]), (4, [1]), (12, [2])]
    assert all(torch.equal(a, b) for a, b in zip(together, separate, strict=True))


def test_a_label_is_read_only_if_asked_for(model):
    tokens, order = tiny.batch(model)[0], order_of(model, "raster")
    unlabelled, labelled = (one(model, tokens, f"raster/causal/token/L2/mean/mean{label}") for label in ("", "/label1"))
    for label, features in ((model.num_classes, unlabelled), (1, labelled)):
        (state,) = model.hidden(tokens, torch.full((3,), label), order, [2])
        assert torch.equal(features, state.mean(1))
    assert not torch.equal(unlabelled, labelled)
    with pytest.raises(ValueError, match=r"label3: the model has 3 classes"):
        one(model, tokens, "raster/causal/token/L2/mean/mean/label3")


def test_a_model_that_knows_one_order_refuses_to_be_read_in_another():
    model = tiny.model("llamagen")
    for text in ("random/causal/token/L1/mean/mean", "bidirectional/causal/token/L1/mean/mean"):
        with pytest.raises(ValueError, match="is none of LlamaGen's: raster"):
            read(model, tiny.batch(model)[0], [FeatureSpec.parse(text)])


@pytest.mark.parametrize("model", tiny.ANY_ORDER, indirect=True, ids=tiny.name)
def test_an_order_may_be_written_out(model):
    tokens, order = tiny.batch(model)[0], order_of(model, "columns")
    written = ",".join(str(place) for place in order[0].tolist())
    columns, explicit = (one(model, tokens, f"{o}/causal/query/L2/mean/mean") for o in ("columns", f"[{written}]"))
    assert torch.equal(explicit, columns)
    with pytest.raises(ValueError, match=r"not a permutation|holds .* positions"):
        one(model, tokens, "[0,0]/causal/token/L1/mean/mean")


def test_what_a_model_cannot_do_is_refused_before_it_reads(model, monkeypatch):
    monkeypatch.setattr(model, "hidden", None)
    for text, message in (
        ("raster/causal/token/L3/mean/mean", "layers are numbered 1 to 2"),
        ("raster/after/token/L1/mean/mean", "context 'after'"),
        ("raster/causal/token/L1/grid9/mean", "pool grid9 asks for more cells than"),
        ("raster/causal/token/L1/mean/mean/label3", "the model has 3 classes"),
    ):
        with pytest.raises(ValueError, match=message):
            check(model, FeatureSpec.parse(text))


def test_reading_evaluates_and_leaves_the_model_as_it_was(build):
    model = build(dropout=0.9)
    tokens, state = tiny.batch(model)[0], torch.get_rng_state()
    expected = read(model, tokens, [DENSE])[0]
    assert torch.equal(read(model.train(), tokens, [DENSE])[0], expected)
    assert model.training
    with pytest.raises(ValueError, match="layers are numbered 1 to 2"):
        one(model, tokens, "raster/causal/token/L3/mean/mean")
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
