"""Parsers on random input: each gives a value that means the same when it is written again, or a ValueError of one
sentence. `derandomize` makes every run the same."""

import json
import string

import battery
import endings
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from randfeat.pretrain import read_recipe

from randfeat import FeatureSpec, Sampling, load
from randfeat.commands.app import checked_hosts
from randfeat.commands.sample import read_order
from randfeat.data.sources import open_source, table
from randfeat.data.token_store import TokenStore
from randfeat.features.store import FeatureStore
from randfeat.index import Index
from randfeat.utils import arrays

SMALL = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
FEW = settings(SMALL, max_examples=25)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return battery.Place(tmp_path_factory.mktemp("parsers"))


def ends_well(call, *given):
    """Return what a call returns, None where it raises an error of one sentence."""
    try:
        return call(*given)
    except (ValueError, OSError, RuntimeError) as error:
        sentence = str(error)
    assert not endings.RAW.search(sentence), sentence
    return None


# feature specs -------------------------------------------------------------------------------------------------------

WORDS = ["raster", "random*2", "random*2@7:per-image", "[1,0]", "causal", "echo", "query", "token", "L1", "L-1,L0.5"]
MORE = ["L0", "L1.5", "mean", "grid2", "grid0", "concat", "label3", "label-1", "shifts2", "shifts0", "", "+", "*", "é"]


@SMALL
@given(st.lists(st.sampled_from([*WORDS, *MORE]), max_size=9).map("/".join) | st.text(max_size=40))
@example("random*99999/causal/token/L1/mean/mean")
@example("raster/causal/token/L" + "9" * 5000 + "/mean/mean")
@example("raster/causal/token/L1/mean/mean/label" + "9" * 5000)
@example("raster/causal/token/L1/grid" + "9" * 5000 + "/mean")
def test_feature_specs(text):
    spec = ends_well(FeatureSpec.parse, text)
    if spec is not None:
        assert FeatureSpec.parse(str(spec)) == spec
        ends_well(spec.resolved, 4)


# configs and settings ------------------------------------------------------------------------------------------------

VALUES = st.none() | st.booleans() | st.integers(-3, 300) | st.floats() | st.text(max_size=5)
JSON = st.recursive(
    VALUES, lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=6), one, max_size=3)
)
GENERATOR = ("name", "grid", "vocab_size", "num_classes", "embed_dim", "depth", "num_heads", "dropout", "ffn_dim")
SETTINGS = ("steps", "schedule", "guidance", "temperature", "top_k", "top_p", "order", "sweeps", "control_guidance")


@FEW
@given(st.sampled_from(GENERATOR), JSON)
def test_configs_of_a_model(place, field, value):
    content = json.loads((place["model"] / "config.json").read_text())
    content["generator"][field] = value
    folder = place["model_to_change"]
    (folder / "config.json").write_text(json.dumps(content))
    ends_well(load, folder)


@SMALL
@given(st.dictionaries(st.sampled_from(SETTINGS), JSON, max_size=3))
def test_settings_of_sampling(content):
    made = ends_well(Sampling.from_dict, content)
    if made is not None:
        assert Sampling.from_dict(json.loads(json.dumps(made.as_dict()))) == made


@FEW
@given(st.dictionaries(st.sampled_from(["model", "training", "running", "grid", "label"]), JSON, max_size=3))
def test_recipes(tmp_path, content):
    (tmp_path / "recipe.yaml").write_text(json.dumps(content))
    ends_well(read_recipe, str(tmp_path / "recipe.yaml"))


@FEW
@given(st.binary(max_size=60))
def test_recipes_of_any_bytes(tmp_path, content):
    (tmp_path / "recipe.yaml").write_bytes(content)
    ends_well(read_recipe, str(tmp_path / "recipe.yaml"))


# meta files ----------------------------------------------------------------------------------------------------------

OPEN = {"store": FeatureStore.open, "cache": TokenStore.open, "index": Index.open}
USE = {
    "store": lambda store: (store.classes, len(store), [store.as_numpy(spec) for spec in store.specs]),
    "cache": lambda store: (store.classes, len(store), store.grid, store.crops, store.vocab_size),
    "index": lambda index: (index.stats(), index.search(np.zeros((1, 16), np.float32), 1)),
}


@FEW
@given(st.sampled_from(sorted(OPEN)), st.data())
def test_meta_files(place, kind, data):
    meta = json.loads((place[kind] / "meta.json").read_text())
    changed = meta | {data.draw(st.sampled_from(sorted(meta))): data.draw(JSON)}
    folder = place[f"{kind}_to_change"]
    (folder / "meta.json").write_text(json.dumps(changed))
    opened = ends_well(OPEN[kind], folder)
    if opened is not None:
        ends_well(USE[kind], opened)


@FEW
@given(st.sampled_from(sorted(OPEN)), st.binary(max_size=80) | JSON.map(lambda one: json.dumps(one).encode()))
def test_meta_files_of_any_content(place, kind, content):
    folder = place[f"{kind}_to_change"]
    (folder / "meta.json").write_bytes(content)
    assert ends_well(OPEN[kind], folder) is None


# tables, orders, arrays ----------------------------------------------------------------------------------------------

CELLS = st.text(string.ascii_letters + string.digits + " ,;\t\"'é.-/\r", max_size=8)
LINES = st.lists(st.lists(CELLS, max_size=4), max_size=5)


@SMALL
@given(st.sampled_from([".csv", ".tsv", ".txt", ".lst", ".jsonl"]), LINES, st.booleans())
def test_tables(tmp_path, suffix, lines, headed):
    separator = "\t" if suffix == ".tsv" else ","
    text = "\n".join(separator.join(line) for line in ([["path", "label"], *lines] if headed else lines))
    path = tmp_path / f"table{suffix}"
    path.write_text(text, encoding="utf-8", newline="")
    columns = ends_well(table.read, path)
    if columns is not None and columns.labels is not None:
        assert len(columns.labels) == len(columns.paths)
    ends_well(open_source, str(path))


@SMALL
@given(st.sampled_from([".csv", ".tsv", ".txt", ".jsonl", ".parquet", ".tar"]), st.binary(max_size=200))
def test_tables_of_any_bytes(tmp_path, suffix, content):
    path = tmp_path / f"table{suffix}"
    path.write_bytes(content)
    ends_well(open_source, str(path))


@SMALL
@given(st.binary(max_size=30) | st.lists(st.integers(-2, 9)).map(lambda row: " ".join(map(str, row)).encode()))
def test_orders(tmp_path, content):
    (tmp_path / "order.txt").write_bytes(content)
    order = ends_well(read_order, tmp_path / "order.txt")
    assert order is None or all(isinstance(place, int) for place in order)


@SMALL
@given(st.integers(0, 700), st.binary(min_size=1, max_size=4))
def test_archives_of_samples(place, tmp_path, at, content):
    whole = place["good_npz"].read_bytes()
    path = tmp_path / "samples.npz"
    path.write_bytes(whole[:at] + content + whole[at + len(content) :])
    pictures = ends_well(lambda: [*arrays.read_images(path)])
    assert pictures is None or all(picture.mode == "RGB" for picture in pictures)


@SMALL
@given(st.lists(st.integers(0, 4), max_size=5), st.sampled_from(["uint8", "float32", "int64", "bool", "U3"]))
def test_arrays_of_any_shape(tmp_path, shape, kind):
    np.savez(tmp_path / "samples.npz", arr_0=np.zeros(shape, kind))
    pictures = ends_well(lambda: [*arrays.read_images(tmp_path / "samples.npz")])
    assert (pictures is not None) == (len(shape) == 4 and shape[3:] == [3] and kind == "uint8" and 0 not in shape[1:3])


@SMALL
@given(st.text(max_size=20))
def test_hosts(name):
    hosts = ends_well(checked_hosts, [name])
    assert hosts is None or not set(name) & set(":/ ?#@")
