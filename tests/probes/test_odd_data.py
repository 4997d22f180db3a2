"""Every task on odd data, as a function and from the command line: it works, or one sentence says why not."""

import re
import warnings
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from randfeat.probes import FeatureSet, Labelled, Protocol, evaluate
from randfeat.probes.tasks.classification import FITTING, MEASURES
from records import load_all

from randfeat import cli
from randfeat.features import store
from randfeat.utils import arrays

RANKING = tuple(task for task in MEASURES if task not in FITTING)
SHOTS = 1
NOTHING_HELD_OUT = "nothing is chosen, the first candidate is taken"
ONE_CLASS = r"labels hold one class \(ant\), expected two or more"


class Odd(NamedTuple):
    """Rows of train's 30 images and of test's 15. says: what tasks warn of or, those in `fails`, stop with."""

    train: slice | list = slice(None)
    test: slice | list = slice(None)
    says: dict = {}  # noqa: RUF012  never changed
    fails: tuple = ()


EVEN = Odd()


def of_class(count, *classes):
    return [row for row in range(count) if row % 3 in classes]


NONE_TO_FIND = {"retrieval": "no query has an image of its label to find"}
FEW = dict.fromkeys(("knn", "linear", "fewshot"), NOTHING_HELD_OUT)
UNSEEN = dict.fromkeys(("knn", "linear", "attentive"), r"5 test images are of classes that train lacks \(first: bee\)")
CASES = {
    "one image of each class": Odd(slice(3), slice(3), FEW | NONE_TO_FIND, ("retrieval",)),
    "a class only in test": Odd(
        of_class(30, 0, 2), says=UNSEEN | {"fewshot": "classes that train lacks, such as bee"}, fails=("fewshot",)
    ),
    "a class only in train": Odd(test=of_class(15, 0, 2)),
    "fewer images than k": Odd(slice(6)),
    "two images": Odd(slice(2), slice(2), FEW | NONE_TO_FIND, ("retrieval",)),
    "one class": Odd(of_class(30, 0), of_class(15, 0), dict.fromkeys(MEASURES, ONE_CLASS), tuple(MEASURES)),
    "one class in train": Odd(of_class(30, 0), says=dict.fromkeys(FITTING, ONE_CLASS), fails=FITTING),
    "one class in test": Odd(test=of_class(15, 0), says=dict.fromkeys(RANKING, ONE_CLASS), fails=RANKING),
}


def part(count, seed, task, rows=slice(None), names=("ant", "bee", "cat")):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    x = np.eye(8, dtype=np.float32)[labels] + 0.3 * rng.standard_normal((count, 8)).astype(np.float32)
    x = np.repeat(x[:, :, None, None], 2, axis=2) if task == "attentive" else x
    paths = np.array([f"{seed}/{row}.png" for row in range(count)])
    return Labelled({spec(task): x[rows]}, np.array(names)[labels][rows], paths[rows])


def spec(task):
    return f"raster/causal/token/L0.5/{'none' if task == 'attentive' else 'mean'}/mean"


def both(task, odd=EVEN, **more):
    return FeatureSet("x", part(30, 0, task, odd.train, **more), part(15, 1, task, odd.test, **more))


def searched(data, task):
    """Searches take long, and odd are those where little can be held out."""
    return task != "attentive" and len(data.train) < 6


def protocol(data, task):
    return Protocol(draws=50, pcas=(None,), shots=SHOTS, shot_draws=4, runs=2, search=searched(data, task))


def by_command(data, task, folder):
    """The exit code and the records, from two stores."""
    for own, name in ((data.train, "train"), (data.test, "test")):
        (folder / name).mkdir()
        classes, codes = np.unique(np.concatenate([data.train.labels, data.test.labels]), return_inverse=True)
        codes = codes[: len(data.train)] if name == "train" else codes[len(data.train) :]
        [(reading, x)] = own.features.items()
        record = {"model": "x", "specs": [reading], "encoder": {}}
        record["source"] = {"name": name, "images": len(own), "classes": classes.tolist(), "fingerprint": name}
        table = pa.table([own.paths.tolist(), codes.tolist()], store.FeatureStore.ROW_SCHEMA)
        store.write(folder / name, record, table, [x.shape[1:]], [arrays.blocks(x)], [])
    given = ["--train", folder / "train", "--test", folder / "test", "-o", folder / "out"]
    search = [] if searched(data, task) else ["--no-search"]
    options = ["--resamples", 50, "--shots", SHOTS, "--device", "cpu", *search]
    code = cli.main([str(word) for word in ("probe", task, *given, *options)])
    records = [record for record in load_all(folder / "out") if not record.is_baseline] if code == 0 else []
    return code, records


WAYS = pytest.mark.parametrize("way", ["function", "command"])
TASKS = pytest.mark.parametrize("task", MEASURES)


def run(way, data, task, tmp_path, capsys):
    """The record or None, and all that was said."""
    if way == "command":
        code, records = by_command(data, task, tmp_path)
        said = capsys.readouterr().err
        assert "Traceback" not in said
        return (records[0] if code == 0 else None), said
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            record, error = evaluate(data, task, protocol(data, task)), ""
        except ValueError as failure:
            record, error = None, str(failure)
    return record, "\n".join([*(str(one.message) for one in caught), error])


@WAYS
@TASKS
@pytest.mark.parametrize("name", CASES)
def test_it_works_or_says_why(name, task, way, tmp_path, capsys):
    odd = CASES[name]
    record, said = run(way, both(task, odd), task, tmp_path, capsys)
    assert (record is None) == (task in odd.fails), said
    if expected := odd.says.get(task):
        assert re.search(expected, said)
    if record:
        score = record.scores[record.headline]
        assert 0 <= score.low <= score.value <= score.high <= 1
        assert score.n == len(record.arrays["paths"]) == len(both(task, odd).test)


@WAYS
@TASKS
@pytest.mark.parametrize("name", ["train", "test"])
def test_features_that_are_no_numbers_name_their_images(name, task, way, tmp_path, capsys):
    data = both(task)
    x = getattr(data, name).features[spec(task)]
    x[3], x[8, 0] = np.nan, np.inf
    record, said = run(way, data, task, tmp_path, capsys)
    assert record is None
    number = ["train", "test"].index(name)
    assert f"{name}) hold NaN or infinity in 2 of {len(x)} rows (first: 3, 8)" in said
    assert f"These are {number}/3.png, {number}/8.png." in said


@WAYS
@TASKS
def test_constant_features_are_no_better_than_chance(task, way, tmp_path, capsys):
    data = both(task)
    for own in (data.train, data.test):
        own.features[spec(task)][:] = 1
    record, said = run(way, data, task, tmp_path, capsys)
    assert record.scores[record.headline].value <= 0.4
    assert ("15 of 15 test images have exactly" in said) == (task in FITTING)


@WAYS
@TASKS
def test_copies_of_train_in_test_are_counted(task, way, tmp_path, capsys):
    data = both(task)
    data.test.features[spec(task)][[5, 6]] = data.train.features[spec(task)][8]
    record, said = run(way, data, task, tmp_path, capsys)
    assert record
    assert ("2 of 15 test images have exactly" in said) == (task in FITTING)  # the others do not look at train


@TASKS
def test_a_part_without_images_is_an_error_where_it_is_read(task):
    with pytest.raises(ValueError, match=f"x has no images of test; {task} needs some"):
        evaluate(both(task, Odd(test=[])), task)
    empty = both(task, Odd([]))
    if task in FITTING:
        with pytest.raises(ValueError, match=f"x has no images of train; {task} needs some"):
            evaluate(empty, task)
    else:
        assert evaluate(empty, task, protocol(empty, task)).scores


def test_all_images_may_be_test_where_nothing_is_fitted(tmp_path, capsys):
    by_command(both("knn"), "knn", tmp_path)
    share = ["-o", str(tmp_path / "all"), "--test-share", "0", "--resamples", "50", "--device", "cpu"]
    assert cli.main(["probe", "retrieval", str(tmp_path / "train"), *share]) == 0
    assert cli.main(["probe", "knn", str(tmp_path / "train"), *share]) == 1
    assert "--test-share 0 leaves no train images, which knn needs" in capsys.readouterr().err


@TASKS
def test_labels_are_strings_objects_or_numbers_alike(task):
    how = protocol(both(task), task)
    scores = evaluate(both(task), task, how).scores
    for names in (np.array(["ant", "bee", "cat"], dtype=object), np.array([3, 5, 70])):
        assert evaluate(both(task, names=names), task, how).scores == scores
