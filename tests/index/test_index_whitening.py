"""An index of whitened rows is one of the rows that `probes.Components` makes, learned from the first."""

from __future__ import annotations

import numpy as np
import pytest
from randfeat.probes import Components

from randfeat import Index
from randfeat.index.directory import Directory

RNG = np.random.default_rng(0)
SPREAD = np.array([9, 5, 3, 1, 0.5, 0.2]).astype(np.float32)  # of the dimensions


def rows(count):
    return RNG.normal(size=(count, 6)).astype(np.float32) * SPREAD + 4


FIRST, MORE, ASKED = rows(300), rows(40), rows(9)
NAMES = [f"{row}.png" for row in range(340)]
BY_HAND = Components(3, whiten=True).fit(FIRST)


def plain(count=340, metric="cosine"):
    return Index(BY_HAND.transform(np.concatenate((FIRST, MORE)))[:count], NAMES[:count], metric=metric)


def same(found, expected):
    assert [[match.path for match in one] for one in found] == [[match.path for match in one] for one in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose([m.score for m in one], [m.score for m in other], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("where", ["memory", "disk", "saved"])
def test_rows_and_queries_go_through_what_the_first_rows_taught(tmp_path, metric, where):
    if where == "disk":
        index = Index.build(tmp_path / "index", FIRST, NAMES[:300], metric=metric, whiten=3)
    else:
        index = Index(FIRST, NAMES[:300], metric=metric, whiten=3)
    assert (index.dim, index.width, index.stats()["whitened"]) == (3, 6, 6)
    index.add(MORE, NAMES[300:])
    if where != "memory":
        index.save(tmp_path / "index")
        index = Index.open(tmp_path / "index")
        index.verify()
    asked = BY_HAND.transform(ASKED)
    for whole in (False, True):
        same(index.search(ASKED, 7), plain(metric=metric).search(asked, 7))
        same(index.similar([3, 310], 5), plain(metric=metric).similar([3, 310], 5))
        near = {"cosine": 0.999, "dot": 6.0, "l2": 0.2}[metric]
        same(index.within(ASKED, near), plain(metric=metric).within(asked, near))
        same(index.near_duplicates(near), plain(metric=metric).near_duplicates(near))
        if not whole:
            index.update(MORE[:1], NAMES[300:301])
            index.compact()


def test_it_matters():
    """Directions that vary most are no longer all that counts."""
    found, plainly = (Index(FIRST, NAMES[:300], whiten=how).search(ASKED, 10) for how in (6, None))
    assert [m.path for m in found[0]] != [m.path for m in plainly[0]]


def test_no_more_components_than_vary():
    flat = np.concatenate((FIRST, FIRST[:, :2]), 1)
    assert Index(flat, NAMES[:300], whiten=99).dim == 6
    assert Index(flat[:4], NAMES[:4], whiten=99).dim == 3
    one = Index(np.ones((5, 4), np.float32), NAMES[:5], whiten=2, metric="l2").search(np.ones((1, 4), np.float32), 2)
    assert [match.score for match in one[0]] == [0, 0]


def test_what_is_wrong_is_said(tmp_path):
    for wrong in (0, -3, 1.5, True):
        with pytest.raises(ValueError, match="keeps a whole number of components from 1"):
            Index(FIRST, NAMES[:300], whiten=wrong)
    index = Index.build(tmp_path / "index", FIRST, NAMES[:300], whiten=3)
    for features in (BY_HAND.transform(ASKED), ASKED[:, :5]):
        with pytest.raises(ValueError, match="holds features of 6 numbers, the query has"):
            index.search(features, 3)
    with pytest.raises(ValueError, match="holds features of 6 numbers, these have 3"):
        index.add(BY_HAND.transform(MORE), NAMES[300:])
    bad = ASKED.copy()
    bad[2, 1] = np.inf
    with pytest.raises(ValueError, match="row 2 has a value that is not finite"):
        index.search(bad)
    file = tmp_path / "index" / index.meta["whitening"]["name"]
    whole = file.read_bytes()
    file.write_bytes(whole[:-9])
    with pytest.raises(ValueError, match="is missing or not what was written"):
        index.verify()
    with pytest.raises(ValueError, match=r"npz is damaged: copy the index again"):
        Index.open(tmp_path / "index")
    file.unlink()
    with pytest.raises(ValueError, match="is missing: copy the index again"):
        Index.open(tmp_path / "index")


def test_a_failed_building_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(Directory, "commit", lambda *of: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        Index.build(tmp_path / "index", FIRST, NAMES[:300], whiten=3)
    assert not (tmp_path / "index").exists()
