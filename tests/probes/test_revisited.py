import pickle

import numpy as np
import pytest
from PIL import Image
from randfeat.probes import GroundTruth, RevisitedQuery, read_ground_truth, revisited_scores

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
