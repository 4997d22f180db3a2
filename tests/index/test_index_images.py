"""Images into an index, and an index in step with a folder: each image is read once, and again when it has changed."""

from __future__ import annotations

import csv
import os
import shutil

import damaged
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from pipelines import make_sampler

import randfeat
from randfeat import Index
from randfeat.data.sources import open_source
from randfeat.features import extract
from randfeat.features.opening import open_encoder
from randfeat.features.store import FeatureStore
from randfeat.index import Filter, digests, images
from randfeat.utils import atomic

SPEC = "raster/causal/token/L2/mean/mean"


@pytest.fixture
def photos(tmp_path):
    """30 pictures in two classes, every tenth of them damaged."""
    for number in range(30):
        path = tmp_path / "photos" / ("cat", "dog")[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(damaged.noise(8, 8, seed=number)).save(path)
        if number % 10 == 3:
            path.write_bytes(path.read_bytes()[:60])
    return tmp_path / "photos"


class Counted:
    """An encoder that keeps how many pictures it has read."""

    def __init__(self, seed=0, spec=SPEC, stop_after=None):
        self.encoder, self.read, self.stop_after = open_encoder(make_sampler(seed=seed), [spec]), 0, stop_after
        self._encode, self.encoder.encode = self.encoder.encode, self._counting

    def _counting(self, batch):
        if self.stop_after is not None and self.read >= self.stop_after:
            raise KeyboardInterrupt
        self.read += len(batch) * self.started
        self.started = True
        return self._encode(batch)

    started = False  # the first call asks for the shape

    def fresh(self):
        self.read, self.started, self.stop_after = 0, False, None
        return self.encoder


@pytest.fixture
def counted(monkeypatch):
    monkeypatch.setattr(extract, "SHARD", 4)
    return Counted()


def built(tmp_path, photos, counted, **how):
    return images.build(tmp_path / "index", counted.fresh(), open_source(photos), workers=0, batch_size=2, **how)


def synced(index, photos, counted, **how):
    return images.sync(index, open_source(photos), counted.fresh(), workers=0, batch_size=2, **how)


# build -------------------------------------------------------------------------------------------------------


def test_it_holds_what_the_encoder_reads(tmp_path, photos, counted):
    index = built(tmp_path, photos, counted)
    assert counted.read == 27
    assert (len(index), index.labels()) == (27, {"cat": 15, "dog": 12})
    rows = index.rows(index.ids())
    assert [row.id for row in rows] == [*range(27)]
    good = sorted(path for path in photos.rglob("*.png") if path.stat().st_size > 60)
    assert [row.path for row in rows] == [str(path) for path in good]
    assert [row.label for row in rows] == [path.parent.name for path in good]
    features = np.concatenate([counted.encoder.features([path])[0] for path in good])
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    np.testing.assert_allclose(index.vectors(index.ids()), unit, atol=1e-5)
    assert {os.path.basename(path) for path, *_ in index.skipped} == {"03.png", "13.png", "23.png"}  # noqa: PTH119
    assert {reason for _, reason, *_ in index.skipped} == {"truncated"}
    assert index.stats()["skipped"] == 3
    assert index.search(index.read([good[5]], counted.encoder), 1)[0][0].path == str(good[5])
    assert not (tmp_path / "index" / "unfinished").exists()
    index.verify()


def test_what_was_stopped_goes_on(tmp_path, photos, counted):
    source = open_source(photos)
    for _ in range(2):
        counted.fresh()
        counted.stop_after = 8
        with pytest.raises(KeyboardInterrupt):
            images.build(tmp_path / "index", counted.encoder, source, workers=0, batch_size=2)
        assert counted.read == 8
        with pytest.raises(FileNotFoundError, match="its building is unfinished: run the same command again"):
            Index.open(tmp_path / "index")
    with pytest.raises(ValueError, match="holds features with spec raster/causal/token/L2/mean/mean, not"):
        images.build(tmp_path / "index", Counted(spec="raster/causal/token/L1/mean/mean").encoder, source, workers=0)
    with pytest.raises(ValueError, match=r"holds features with encoder\.weights"):
        images.build(tmp_path / "index", Counted(seed=1).encoder, source, workers=0)
    changed = next(path for path in sorted(photos.rglob("*.png")) if path.stat().st_size > 60)
    Image.fromarray(damaged.noise(9, 9, seed=99)).save(changed)  # was read already
    index = built(tmp_path, photos, counted)
    assert counted.read == 27 - 16 + 1
    np.testing.assert_allclose(index.search(index.read([changed], counted.encoder), 1)[0][0].score, 1, atol=1e-5)
    again = images.build(tmp_path / "other", counted.fresh(), open_source(photos), workers=0)
    for path in again.find([row.path for row in index.rows(index.ids())]):
        assert path is not None
    assert len(again) == len(index) == 27


def test_a_store_of_features_becomes_an_index(tmp_path, photos, counted):
    specs = [SPEC, "raster/causal/query/L1/mean/mean"]
    store = extract.extract(open_encoder(make_sampler(), specs), open_source(photos), tmp_path / "store", workers=0)
    with pytest.raises(ValueError, match="holds 2 features, say which"):
        images.build_from_store(tmp_path / "index", store)
    index = images.build_from_store(tmp_path / "index", FeatureStore.open(tmp_path / "store"), SPEC)
    assert [row.path for row in index.rows(index.ids())] == [str(photos / path) for path in store.paths]
    assert index.labels() == {"cat": 15, "dog": 12}
    assert len(index.skipped) == 3
    assert images.sync(index, open_source(photos), None, drop=False).unchanged == 27  # the three are as they were
    (match,) = index.search(index.read([photos / store.paths[4]], counted.encoder), 1)[0]
    assert match.path == str(photos / store.paths[4])
    with pytest.raises(ValueError, match=f"read as {SPEC}, not as {specs[1]}"):
        index.read([photos / store.paths[4]], open_encoder(make_sampler(), specs[1:]))


def test_any_network_of_timm(tmp_path, photos):
    backbone = timm.create_model("test_vit", num_classes=0)
    from randfeat.features.timm_encoder import TimmEncoder

    encoder = TimmEncoder(backbone)
    index = images.build(tmp_path / "index", encoder, open_source(photos), workers=0)
    assert index.encoder_record["model"] == "timm:test_vit"
    assert index.encoder_record["spec"] == "pooled"
    (match,) = index.search(index.read([photos / "cat" / "00.png"], encoder), 1)[0]
    assert match.path == str(photos / "cat" / "00.png")
    with pytest.raises(ValueError, match="is another: it was"):
        index.read([photos / "cat" / "00.png"], TimmEncoder(timm.create_model("test_vit", num_classes=0)))


def test_the_encoder_of_an_index_is_found_again(tmp_path, photos, monkeypatch):
    make_sampler().save(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    index = images.build("index", open_encoder("model", [SPEC], dtype=torch.bfloat16), open_source("photos"), workers=0)
    monkeypatch.chdir("/")
    index = Index.open(tmp_path / "index")
    assert index.encoder_record["model"] == str(tmp_path / "model")
    encoder = index.encoder()
    assert encoder.record()["dtype"] == "bfloat16"
    assert index.search(index.read([photos / "cat" / "04.png"], encoder), 1)[0][0].path == str(
        photos / "cat" / "04.png"
    )
    shutil.move(tmp_path / "model", tmp_path / "moved")
    assert index.encoder(model=str(tmp_path / "moved")).specs == encoder.specs
    make_sampler(seed=3).save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"was read by .*/model, and .*/model is another: it was weights"):
        index.encoder()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (["raster/causal/token/L1/none/mean"], "gives a map .* of each image: choose a spec with a pool"),
        ([SPEC, "raster/causal/token/L1/mean/mean"], "one feature of each image, not 2"),
    ],
)
def test_what_is_no_vector_is_refused(tmp_path, photos, spec, message):
    with pytest.raises(ValueError, match=message):
        images.build(tmp_path / "index", open_encoder(make_sampler(), spec), open_source(photos), workers=0)
    assert not (tmp_path / "index").exists()


def test_no_readable_image_is_an_error(tmp_path, counted):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"none of the 1 images of .* could be read: 1 an empty file"):
        built(tmp_path, tmp_path / "photos", counted)
    assert not (tmp_path / "index").exists()


# sync --------------------------------------------------------------------------------------------------------


def touched(path, seed):
    Image.fromarray(damaged.noise(10, 10, seed=seed)).save(path)


def test_sync_reads_only_what_changed(tmp_path, photos, counted):
    index = built(tmp_path, photos, counted)
    before = {row.path: row.id for row in index.rows(index.ids())}
    changes = synced(index, photos, counted)
    assert counted.read == 0
    assert (changes.added, changes.changed, changes.removed, changes.unchanged, changes.skipped) == (0, 0, 0, 27, [])
    manifest = (tmp_path / "index" / "meta.json").read_bytes()

    touched(photos / "cat" / "00.png", 100)
    touched(photos / "cat" / "new.png", 101)
    touched(photos / "dog" / "13.png", 102)  # could not be read
    (photos / "dog" / "23.png").unlink()  # could not be read either
    (photos / "dog" / "01.png").unlink()
    (photos / "dog" / "05.png").rename(photos / "cat" / "05.png")
    (photos / "dog" / "07.png").write_bytes(b"nonsense")
    os.utime(photos / "cat" / "02.png", ns=(1, 1))
    todo = images.plan(index, open_source(photos))
    assert (len(todo.new), len(todo.changed), len(todo.gone), todo.unchanged) == (2, 2, 1, 23)
    assert [*todo.moved.values()] == [str(photos / "dog" / "05.png")]
    assert (tmp_path / "index" / "meta.json").read_bytes() == manifest
    changes = synced(index, photos, counted)
    assert counted.read == 3  # and one was tried in vain; one was renamed, one only touched
    assert (changes.added, changes.changed, changes.removed, changes.unchanged) == (2, 1, 2, 23)
    assert (changes.moved, changes.copied) == (1, 0)
    assert index.find([photos / "cat" / "05.png"]) == [before[str(photos / "dog" / "05.png")]]
    assert changes.skipped == [(str(photos / "dog" / "07.png"), "text, no picture")]
    assert len(index) == 27 + 3 - 3
    index.verify()
    assert index.find([photos / "cat" / "00.png"]) == [before[str(photos / "cat" / "00.png")]]
    assert index.find([photos / "dog" / "05.png", photos / "dog" / "07.png"]) == [None, None]
    assert {os.path.basename(path) for path, *_ in index.skipped} == {"03.png", "07.png"}  # noqa: PTH119
    for path in [*photos.rglob("*.png")]:
        if path.name not in ("03.png", "07.png"):
            (match,) = index.search(index.read([path], counted.encoder), 1)[0]
            assert (match.path, match.label) == (str(path), path.parent.name)
            assert match.score == pytest.approx(1, abs=1e-5)
    assert not images.plan(index, open_source(photos))


def test_what_lies_elsewhere_stays(tmp_path, photos, counted):
    index = built(tmp_path, photos, counted)
    shutil.copytree(photos / "cat", tmp_path / "photos2" / "cat")
    assert synced(index, tmp_path / "photos2", counted).copied == 15
    assert counted.read == 0
    assert len(index) == 42
    shutil.rmtree(photos / "cat")
    assert synced(index, photos, counted, drop=False).removed == 0
    assert synced(index, photos, counted).removed == 15
    assert index.ids(Filter(paths="cat/*")) == index.ids(Filter(paths=f"{tmp_path}/photos2/*"))
    assert len(index) == 27


def test_a_file_is_known_by_its_bytes(tmp_path, photos, counted):
    index = built(tmp_path, photos, counted)
    cat = photos / "cat"
    before = dict(
        zip(["00", "02", "04"], index.find([cat / f"{name}.png" for name in ("00", "02", "04")]), strict=True)
    )
    vectors = index.vectors(index.ids())
    (cat / "00.png").rename(tmp_path / "aside")  # two change places
    (cat / "02.png").rename(cat / "00.png")
    (tmp_path / "aside").rename(cat / "02.png")
    shutil.copy(cat / "04.png", photos / "dog" / "copy.png")
    (cat / "04.png").rename(photos / "dog" / "renamed.png")
    (photos / "dog").rename(photos / "wolf")
    changes = synced(index, photos, counted)
    assert counted.read == 0
    assert (changes.added, changes.changed, changes.removed) == (0, 0, 0)
    assert (changes.moved, changes.copied, changes.unchanged) == (13, 3, 12)  # all wolves, and one that changed folders
    assert index.find([photos / "wolf" / "copy.png"])[0] == before["04"]  # the first of the two by name
    for name, id_ in (("00", before["02"]), ("02", before["00"])):  # an id stays with its path
        np.testing.assert_array_equal(index.vectors(index.find([cat / f"{name}.png"])), vectors[[id_]])
    assert index.labels() == {"cat": 14, "wolf": 14}
    for path in sorted(photos.rglob("*.png")):
        if path.stat().st_size > 60:
            assert index.search(index.read([path], counted.encoder), 1)[0][0].score == pytest.approx(1, abs=1e-5)
    assert not images.plan(index, open_source(photos))
    index.verify()
    index.compact()
    (photos / "wolf" / "copy.png").rename(photos / "wolf" / "again.png")  # bytes are known after all this
    assert synced(index, photos, counted).moved == 1


def test_what_changes_while_it_is_read_has_no_bytes_to_be_known_by(tmp_path, photos, counted):
    file = photos / "cat" / "00.png"
    state = str(file), file.stat().st_size, file.stat().st_mtime_ns, file.stat().st_ctime_ns
    assert digests.digest_of(state) == atomic.sha256(file)
    assert digests.digest_of((*state[:2], state[2] - 1, state[3])) is None
    assert digests.digest_of((*state[:3], state[3] - 1)) is None
    assert digests.digest_of((str(photos / "nowhere"), 3, 4, 5)) is None
    assert digests.digest_of(("shard.tar/0.png", 3, None, None)) is None


def test_labels_are_taken_over_without_reading(tmp_path, photos, counted):
    good = sorted(path for path in photos.rglob("*.png") if path.stat().st_size > 60)
    table = tmp_path / "table.csv"

    def write(labels):
        with table.open("w", newline="") as file:
            csv.writer(file).writerows([("path", "label"), *zip(map(str, good), labels, strict=False)])

    write(["a", "b"] * 13 + ["a"])
    index = built(tmp_path, table, counted)
    vectors = index.vectors(index.ids())
    write(["a"] * 20 + ["c"] * 7)
    changes = synced(index, table, counted)
    assert counted.read == 0
    assert (changes.relabelled, changes.unchanged) == (17, 10)
    assert index.labels() == {"a": 20, "c": 7}
    np.testing.assert_array_equal(index.vectors(range(27)), vectors)
    assert synced(index, table, counted).unchanged == 27


def test_a_stopped_sync_leaves_the_index_as_it_was(tmp_path, photos, counted):
    index = built(tmp_path, photos, counted)
    for number in range(12):
        touched(photos / "cat" / f"new{number}.png", 200 + number)
    counted.fresh()
    counted.stop_after = 8
    with pytest.raises(KeyboardInterrupt):
        images.sync(index, open_source(photos), counted.encoder, workers=0, batch_size=2)
    assert len(Index.open(tmp_path / "index")) == 27
    assert index.remove([0]) == 1  # another change does no harm
    assert synced(index, photos, counted).added == 13
    assert counted.read == 5  # the four that were left, and the one that was removed
    assert len(Index.open(tmp_path / "index")) == 39


def test_archives_are_added_and_have_nothing_to_be_dropped(tmp_path, photos, counted):
    index = built(tmp_path, photos, counted)
    archive = shutil.make_archive(str(tmp_path / "more"), "tar", photos / "cat")
    source = open_source(archive)
    changes = images.sync(index, source, counted.fresh(), drop=False, workers=0)
    assert (changes.added, counted.read) == (15, 15)
    assert images.sync(index, source, counted.fresh(), drop=False, workers=0).unchanged == 15
    assert counted.read == 0
    with pytest.raises(ValueError, match="is no folder or list of image files: add it instead"):
        images.sync(index, source, counted.fresh(), workers=0)


def test_another_encoder_is_refused(tmp_path, photos, counted):
    index = built(tmp_path, photos, counted)
    touched(photos / "cat" / "new.png", 1)
    with pytest.raises(ValueError, match=f"was read as {SPEC}, not as raster/causal/token/L1/mean/mean"):
        synced(index, photos, Counted(spec="raster/causal/token/L1/mean/mean"))
    with pytest.raises(ValueError, match="was read by randar, and randar is another: it was weights"):
        synced(index, photos, Counted(seed=1))
    with pytest.raises(ValueError, match="1 images are to be read: give the encoder of the index"):
        images.sync(index, open_source(photos))
    assert len(index) == 27
    with pytest.raises(ValueError, match="save it first"):
        images.sync(randfeat.Index(np.eye(2), "ab"), open_source(photos))
    numbers = Index.build(tmp_path / "numbers", np.eye(2), "ab")
    with pytest.raises(ValueError, match="holds numbers that no model read: add to it with"):
        images.sync(numbers, open_source(photos), counted.encoder)
