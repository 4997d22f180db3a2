import os
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from randfeat.probes import GroundTruth, RevisitedQuery, evaluate_revisited, read_ground_truth, revisited_scores
from randfeat.probes.tasks.revisited import read_pickle

NONE = np.empty(0, dtype=np.intp)


def transcribed(ranking, positives, junk, ks):
    """The benchmark's definition, one image at a time: junk leaves the list, AP sums trapezoids under the
    precision-recall curve, precision at k stops at the last positive."""
    kept = [image for image in ranking if image not in junk]
    ap, found, previous_precision = 0.0, 0, 1.0
    for rank, image in enumerate(kept, start=1):
        if image in positives:
            found += 1
            previous_precision = 1.0 if rank == 1 else (found - 1) / (rank - 1)
            ap += (previous_precision + found / rank) / 2 / len(positives)
    last = max(rank for rank, image in enumerate(kept, start=1) if image in positives)
    precisions = [sum(image in positives for image in kept[: min(k, last)]) / min(k, last) for k in ks]
    return [ap, *precisions]


def random_truth(rng, queries=7, images=40):
    parts = [np.split(rng.permutation(images)[:18], [5, 11]) for _ in range(queries)]
    parts[2][0] = NONE  # a query without easy ones
    names = tuple(f"image{i}" for i in range(images))
    return GroundTruth(names, tuple(RevisitedQuery(f"q{i}", (0, 0, 1, 1), *part) for i, part in enumerate(parts)))


def test_scores_are_the_definition():
    rng = np.random.default_rng(0)
    truth = random_truth(rng)
    x, bank = rng.normal(size=(7, 5)), rng.normal(size=(40, 5))
    ks = (1, 5, 10)
    scores = revisited_scores(x, bank, truth, ks)
    cosine = (x @ bank.T) / np.linalg.norm(bank, axis=1)
    rankings = np.argsort(-cosine, axis=1)
    for setup, positives, junk in (
        ("easy", ["easy"], ["junk", "hard"]),
        ("medium", ["easy", "hard"], ["junk"]),
        ("hard", ["hard"], ["junk", "easy"]),
    ):
        expected = []
        for ranking, q in zip(rankings, truth.queries, strict=True):
            good = {i for part in positives for i in getattr(q, part)}
            bad = {i for part in junk for i in getattr(q, part)}
            if good:
                expected.append(transcribed(ranking, good, bad, ks))
        made = np.stack([scores[setup][n] for n in ("average_precision", *(f"precision_at_{k}" for k in ks))], axis=1)
        np.testing.assert_allclose(made, expected, atol=1e-12)
    assert [len(scores[s]["average_precision"]) for s in ("easy", "medium", "hard")] == [6, 7, 7]


def one_query(easy, hard, junk, likeness, ks=(1, 2, 5)):
    query = RevisitedQuery("q", (0, 0, 1, 1), *(np.array(x, dtype=np.intp) for x in (easy, hard, junk)))
    angle = np.arccos(likeness)
    bank = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return revisited_scores([[2.0, 0.0]], bank, GroundTruth(tuple("abcde"[: len(bank)]), (query,)), ks)


def test_a_hand_computed_query():
    # ranking: 0 junk, 1 negative, 2 easy, 3 hard, 4 negative
    scores = one_query([2], [3], [0], [0.9, 0.8, 0.7, 0.6, 0.5])
    # medium: negative, positive, positive: precision goes 0 -> 1/2, then 1/2 -> 2/3
    assert scores["medium"]["average_precision"] == pytest.approx([(0.25 + (1 / 2 + 2 / 3) / 2) / 2])
    assert [scores["medium"][f"precision_at_{k}"][0] for k in (1, 2, 5)] == pytest.approx([0, 1 / 2, 2 / 3])
    # easy: the hard one is not there; precision at 5 is that at 2, where the last positive is
    assert scores["easy"]["average_precision"] == pytest.approx([0.25])
    assert scores["easy"]["precision_at_5"] == pytest.approx([1 / 2])


def test_a_perfect_ranking_has_full_score_at_every_k():
    scores = one_query([0, 1], [2], [4], [0.9, 0.8, 0.7, 0.6, 0.95])
    assert {v[0] for setup in scores.values() for v in setup.values()} == {1.0}


def test_distractors_behind_the_gallery_match_nothing():
    rng = np.random.default_rng(0)
    truth = random_truth(rng)
    x, bank = rng.normal(size=(7, 5)), rng.normal(size=(40, 5))
    clean = revisited_scores(x, bank, truth)
    same = revisited_scores(x, np.concatenate([bank, np.zeros((3, 5)) - 1e-9 * x[:3]]), truth)
    worse = revisited_scores(x, np.concatenate([bank, x]), truth)
    assert (worse["medium"]["precision_at_1"] == 0).all()
    assert (same["hard"]["average_precision"] <= clean["hard"]["average_precision"]).all()


def test_equal_images_rank_in_the_order_of_the_gallery():
    scores = one_query([2], [], [], [0.5, 0.5, 0.5])
    assert scores["easy"]["precision_at_5"] == pytest.approx([1 / 3])
    assert len(scores["hard"]["average_precision"]) == 0


def ground_truth_file(tmp_path, **changes):
    entry = {"bbx": [10.2, 20.7, 30.0, 41.9], "easy": [0, 2], "hard": [], "junk": np.array([1])} | changes
    path = tmp_path / "gnd_roxford5k.pkl"
    content = {"gnd": [entry], "imlist": ["a", "b", "c"], "qimlist": ["q"]}
    path.write_bytes(pickle.dumps(content, 2))
    return path


def test_the_published_file_is_read(tmp_path):
    truth = read_ground_truth(ground_truth_file(tmp_path))
    assert truth.gallery == ("a", "b", "c")
    (query,) = truth.queries
    assert (query.name, query.box) == ("q", (10.2, 20.7, 30.0, 41.9))
    assert [query.easy.tolist(), query.hard.tolist(), query.junk.tolist()] == [[0, 2], [], [1]]
    picture = Image.fromarray(np.arange(100 * 60).reshape(100, 60).astype(np.uint8))
    assert (np.asarray(query.crop(picture)) == np.asarray(picture)[21:42, 10:30]).all()
    assert revisited_scores(np.eye(1, 3), np.eye(3), truth)["easy"]["average_precision"].shape == (1,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"easy": [3]}, "easy of query q holds other than numbers of the 3 gallery images"),
        ({"junk": [0.5]}, "junk of query q holds other"),
        ({"bbx": [1, 2, 3]}, "is no ground truth of revisited Oxford or Paris"),
        ({"easy": None}, "is no ground truth"),
    ],
)
def test_another_file_is_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        read_ground_truth(ground_truth_file(tmp_path, **changes))


def test_a_list_is_no_ground_truth(tmp_path):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(ValueError, match="is no ground truth"):
        read_ground_truth(tmp_path / "x.pkl")


@pytest.mark.parametrize(
    ("shapes", "ks", "message"),
    [
        (((6, 5), (40, 5)), (1,), "expected 7 queries and at least 40 gallery images"),
        (((7, 5), (39, 5)), (1,), "expected 7 queries"),
        (((7, 5), (40, 4)), (1,), "of one dimension"),
        (((7, 5), (40, 5)), (0,), "whole numbers from 1"),
    ],
)
def test_bad_input(shapes, ks, message):
    truth = random_truth(np.random.default_rng(0))
    with pytest.raises(ValueError, match=message):
        revisited_scores(*(np.ones(shape) for shape in shapes), truth, ks)


def test_the_record_holds_the_scores(tmp_path):
    rng = np.random.default_rng(0)
    truth = random_truth(rng)
    x, bank = rng.normal(size=(7, 5)), rng.normal(size=(44, 5))
    record = evaluate_revisited("ours", x, bank, truth, ks=(1, 5), settings={"model": "m"})
    scores = revisited_scores(x, bank, truth, (1, 5))
    assert record.headline == "medium average_precision"
    for setup, of in scores.items():
        for metric, values in of.items():
            assert record.scores[f"{setup} {metric}"].value == pytest.approx(values.mean())
    np.testing.assert_array_equal(record.arrays["right"], scores["medium"]["average_precision"])
    np.testing.assert_array_equal(record.arrays["right hard precision_at_5"], scores["hard"]["precision_at_5"])
    assert "right easy average_precision" not in record.arrays  # one query has no easy image
    assert record.arrays["paths"].tolist() == [f"q{i}" for i in range(7)]
    assert (record.settings["distractors"], record.settings["model"]) == (4, "m")
    assert type(record).load(record.save(tmp_path)) == record


def test_a_truth_without_positives_cannot_be_scored():
    query = RevisitedQuery("q", (0, 0, 1, 1), NONE, NONE, NONE)
    with pytest.raises(ValueError, match="no query has a positive image"):
        evaluate_revisited("ours", np.eye(1, 3), np.eye(3), GroundTruth(("a", "b", "c"), (query,)))


# the pickle ---------------------------------------------------------------------------------------------------------

plain_st = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def written(tmp_path, value, protocol=2):
    path = tmp_path / "values.pkl"
    path.write_bytes(pickle.dumps(value, protocol))
    return path


@given(plain_st, st.integers(0, 5))
@settings(max_examples=80, deadline=None)
def test_plain_values_come_back(tmp_path_factory, value, protocol):
    assert read_pickle(written(tmp_path_factory.mktemp("pickle"), value, protocol)) == value


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array([1, 2], dtype=">i4"),
        np.array(["ab", "c"]),
        np.array([b"ab"]),
        np.array([True, False]),
        np.zeros((0, 4), dtype=np.float32),
        np.array(3.5),
    ],
    ids=repr,
)
def test_arrays_and_their_numbers_come_back(tmp_path, protocol, array):
    back, number = read_pickle(written(tmp_path, [array, np.float64(0.5)], protocol))
    assert (back.dtype.newbyteorder("="), number) == (array.dtype.newbyteorder("="), 0.5)
    assert back.shape == array.shape
    np.testing.assert_array_equal(back, array)


def test_sets_and_arrays_written_by_python_2(tmp_path):
    assert read_pickle(written(tmp_path, {1, 2})) == {1, 2}
    old = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02\x85cnumpy\ndtype\n"
        b"U\x02i4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x08\x01\x00\x00\x00\xff\x00\x00\x00tb."
    )
    (tmp_path / "old.pkl").write_bytes(old)
    assert read_pickle(tmp_path / "old.pkl").tolist() == [1, 255]


class Runs:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


@pytest.mark.parametrize(
    ("call", "named"),
    [
        ((os.mkdir, "made"), "mkdir"),
        ((eval, "1"), "eval"),
        ((getattr, 1, "real"), "getattr"),
        ((np.load, "x.npy"), "load"),
        ((np.save, "made", 1), "save"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_code_is_refused_and_not_run(tmp_path, monkeypatch, call, named, protocol):
    path = written(tmp_path, {"gnd": [Runs(*call)]}, protocol)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=rf"asks for .*{named}, expected plain containers"):
        read_pickle(path)
    assert [path.name for path in tmp_path.iterdir()] == ["values.pkl"]


@pytest.mark.parametrize(
    "array", [np.array([{}], dtype=object), np.array([(1, 2)], dtype="i4,i4"), np.zeros(2, "M8[s]")]
)
def test_arrays_of_anything_but_numbers_and_text_are_refused(tmp_path, array):
    with pytest.raises(ValueError, match=r"asks for arrays of type '.*', expected"):
        read_pickle(written(tmp_path, array))


def test_a_state_that_claims_more_memory_than_it_holds_is_refused(tmp_path):
    honest = pickle.dumps(np.arange(4, dtype=np.uint8), 2)
    (tmp_path / "lies.pkl").write_bytes(honest.replace(b"K\x04\x85", b"K\x7f\x85"))
    with pytest.raises(ValueError, match="is no readable pickle"):
        read_pickle(tmp_path / "lies.pkl")


@pytest.mark.parametrize("content", [b"", b"<html>", pickle.dumps([1, 2, 3])[:-4]])
def test_broken_files_say_so(tmp_path, content):
    (tmp_path / "broken.pkl").write_bytes(content)
    with pytest.raises(ValueError, match="is no readable pickle"):
        read_pickle(tmp_path / "broken.pkl")


def test_objects_outside_the_file_are_refused(tmp_path):
    (tmp_path / "outside.pkl").write_bytes(b"Pname\n.")
    with pytest.raises(ValueError, match="asks for an object outside of the file"):
        read_pickle(tmp_path / "outside.pkl")
