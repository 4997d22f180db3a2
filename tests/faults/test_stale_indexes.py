"""Indexes of pictures that were overwritten in as many bytes, and whose time of change was set back: they notice."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from readers import Means
from test_stale import AFTER, BEFORE, COUNT, as_folder, first, given, grey, later, read

import randfeat
from randfeat.commands.probe.inputs import extract_probed
from randfeat.data.sources import open_source
from randfeat.index import images
from randfeat.index import rows as index_rows


def restored(path: Path, content: bytes) -> None:
    """Write a file anew, in as many bytes, and set its time of change back as `touch -d` does."""
    before = path.stat()
    assert len(content) == before.st_size
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def numbers_of(index) -> dict[str, int]:
    """Return what `Means` has read of each picture, by its name."""
    ids = index.ids()
    rows = zip(index.rows(ids), index.vectors(ids), strict=True)
    return {Path(row.path).name: round(float(vector[0])) for row, vector in rows}


@pytest.mark.parametrize("of_store", [False, True])
def test_an_index_notices_a_picture_whose_time_was_set_back(of_store, tmp_path):
    data, encoder = as_folder(tmp_path, BEFORE), Means(["number"])
    how = dict(metric="dot", index_type="flat")
    if of_store:
        index = images.build_from_store(tmp_path / "index", read(data, tmp_path / "features"), **how)
    else:
        index = images.build(tmp_path / "index", encoder, open_source(data), workers=0, **how)
    before = numbers_of(index)
    restored(data / "b/03.bmp", grey(250))
    (data / "a/02.bmp").chmod(0o600)
    changes = images.sync(index, open_source(data), encoder, workers=0)
    assert (changes.added, changes.changed, changes.removed, changes.unchanged) == (0, 1, 0, 11)
    after = numbers_of(index)
    assert {name for name in before if before[name] != after[name]} == {"03.bmp"}
    assert not images.plan(index, open_source(data))  # the new rights are recorded


def test_an_index_of_a_store_reads_a_picture_whose_time_was_set_back_since(tmp_path):
    data, encoder = as_folder(tmp_path, BEFORE), Means(["number"])
    store = read(data, tmp_path / "features")
    restored(data / "b/03.bmp", grey(250))
    with pytest.warns(UserWarning, match="1 images that have changed since, such as b/03.bmp"):
        index = images.build_from_store(tmp_path / "index", store)
    assert images.sync(index, open_source(data), encoder, workers=0).changed == 1
    assert images.sync(index, open_source(data), encoder, workers=0).changed == 0


def test_a_repaired_picture_whose_time_was_set_back_is_tried_again(tmp_path):
    data, encoder = as_folder(tmp_path, BEFORE), Means(["number"])
    sound = (data / "b/03.bmp").read_bytes()
    (data / "b/03.bmp").write_bytes(b"x" * len(sound))
    index = images.build(tmp_path / "index", encoder, open_source(data), workers=0)
    assert (len(index), len(index.skipped)) == (11, 1)
    assert not images.plan(index, open_source(data))
    restored(data / "b/03.bmp", sound)
    assert images.sync(index, open_source(data), encoder, workers=0).added == 1
    assert (len(index), len(index.skipped)) == (12, 0)


def test_an_index_written_before_times_of_entries_were_kept_goes_by_the_others(tmp_path, monkeypatch):
    data, encoder = as_folder(tmp_path, BEFORE), Means(["number"])
    with monkeypatch.context() as patch:
        patch.setattr(index_rows, "write", lambda path, table: pq.write_table(table.drop_columns("ctime_ns"), path))
        images.build(tmp_path / "index", encoder, open_source(data), workers=0)
    index = randfeat.Index.open(tmp_path / "index")
    assert "ctime_ns" not in pq.read_schema(tmp_path / "index" / "000001.parquet").names
    assert not images.plan(index, open_source(data))
    later(as_folder(tmp_path, AFTER))
    assert images.sync(index, open_source(data), encoder, workers=0).changed == COUNT
    restored(data / "b/03.bmp", grey(250))
    assert images.sync(index, open_source(data), encoder, workers=0).changed == 1


def test_a_probe_makes_features_of_a_picture_whose_time_was_set_back_anew(tmp_path):
    encoder, args, data = Means(["number"]), given(tmp_path), as_folder(tmp_path, BEFORE)
    values = first(extract_probed("m", encoder, [open_source(data)], args).stores[0])
    restored(data / "b/03.bmp", grey(250))
    with pytest.warns(UserWarning, match="1 of 12 images have changed since .* it is made anew"):
        (after,) = extract_probed("m", encoder, [open_source(data)], args).stores
    assert first(after) != values
