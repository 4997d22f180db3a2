"""Results of likelihoods, by hand: means over orders, rankings, and rows of images that could not be read."""

import math

import pytest
import torch

from randfeat.inference.likelihood import Classification, LogProb, RankedClass

SHARES = torch.tensor([[0.2, 0.5, 0.3], [0.7, 0.1, 0.2]])
INDICES, NAMES = [4, 0, 2], ["boot", "bag", "coat"]


def classified(shares=SHARES, passes=6.0):
    order = shares.argsort(1, descending=True)
    # any constant may be added to what is known of an image: -3 here
    return Classification(shares.log() - 3, order, INDICES, NAMES, torch.full((len(shares),), passes))


def test_mean_and_spread_are_over_the_orders():
    found = LogProb(torch.tensor([[-1.0, -3.0], [-4.0, -4.0]]))
    assert found.mean.tolist() == [-2, -4]
    torch.testing.assert_close(found.std, torch.tensor([math.sqrt(2), 0.0]))  # of a sample: n - 1
    alone = LogProb(torch.tensor([[-1.0], [-2.0]]))
    assert alone.mean.tolist() == [-1, -2]
    assert alone.std.shape == (2,)
    assert alone.std.isnan().all()


def test_classes_are_ranked_by_their_likelihood():
    found = classified()
    assert found.best.tolist() == [0, 4]  # indices in the model, not columns
    torch.testing.assert_close(found.probabilities, SHARES)
    first, second = found.top(2)
    assert [one.name for one in first] == ["bag", "coat"]
    assert [one.name for one in second] == ["boot", "coat"]
    assert first[0] == RankedClass(0, "bag", pytest.approx(0.5), pytest.approx(math.log(0.5) - 3))
    assert second[1] == RankedClass(2, "coat", pytest.approx(0.2), pytest.approx(math.log(0.2) - 3))
    assert found.top(1) == [row[:1] for row in found.ranked()]
    assert found.top(9) == found.top() == found.ranked()
    assert [len(row) for row in found.ranked()] == [3, 3]
    with pytest.raises(ValueError, match="top needs a number of classes from 1, got 0"):
        found.top(0)


def test_top_has_five_classes_unless_told_otherwise():
    scores = torch.arange(8.0).flip(0)[None]
    found = Classification(scores, torch.arange(8)[None], list(range(8)), list("abcdefgh"), torch.ones(1))
    assert [one.name for one in found.top()[0]] == list("abcde")


def test_the_order_decides_the_rank_and_not_the_likelihood():
    """Successive halving ranks a class that it kept above one that it dropped with a better mean of fewer orders."""
    found = Classification(SHARES[:1].log(), torch.tensor([[2, 0, 1]]), INDICES, NAMES, torch.ones(1))
    assert [one.name for one in found.ranked()[0]] == ["coat", "boot", "bag"]
    assert found.best.tolist() == [2]


def test_images_that_could_not_be_read_have_a_row_without_a_class():
    found, read = classified().with_skipped([0, 2]), classified()
    assert found.best.tolist() == [-1, 0, -1, 4]
    assert found.passes.tolist() == [0, 6, 0, 6]
    assert found.skipped == (0, 2)
    assert found.log_prob.isnan().all(1).tolist() == [True, False, True, False]
    assert torch.equal(found.log_prob[[1, 3]], read.log_prob)
    assert torch.equal(found.order[[1, 3]], read.order)
    assert found.order.sort(1).values.tolist() == [[0, 1, 2]] * 4  # columns that exist, in skipped rows too
    assert found.ranked() == [[], read.ranked()[0], [], read.ranked()[1]]
    assert (found.indices, found.names) == (INDICES, NAMES)
    same = classified()
    assert same.with_skipped([]) is same


def test_batches_are_put_together():
    parts = [classified(SHARES[:1], 2.0), classified(SHARES[1:], 5.0)]
    found = Classification.concatenated(parts)
    whole = classified()
    assert torch.equal(found.log_prob, whole.log_prob)
    assert torch.equal(found.order, whole.order)
    assert found.passes.tolist() == [2, 5]
    assert (found.indices, found.names) == (INDICES, NAMES)
    assert found.skipped == ()
