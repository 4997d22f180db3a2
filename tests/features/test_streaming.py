"""Features of data sets that are streamed: Hugging Face's IterableDataset through `as_map_fn`."""

from __future__ import annotations

import io

import damaged
import datasets
import numpy as np
import pytest
from PIL import Image
from pipelines import make_pipeline
from torch.utils.data import DataLoader

from randfeat.data.errors import SkippedImages

COUNT = 14


@pytest.fixture(scope="module")
def pictures():
    return [damaged.noise_picture(8, 9, seed=seed) for seed in range(COUNT)]


@pytest.fixture
def files(pictures, tmp_path):
    """Two parquet files of seven rows each."""
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    for part in range(2):
        rows = slice(7 * part, 7 * part + 7)
        made = {"image": pictures[rows], "label": [*range(COUNT)][rows]}
        datasets.Dataset.from_dict(made, features=kinds).to_parquet(str(tmp_path / f"{part}.parquet"))
    return sorted(map(str, tmp_path.glob("*.parquet")))


def streamed(files, tmp_path):
    found = datasets.load_dataset(
        "parquet", data_files={"train": files}, split="train", streaming=True, cache_dir=str(tmp_path / "cache")
    )
    assert isinstance(found, datasets.IterableDataset)
    return found


@pytest.mark.parametrize("spec", [None, "raster/causal/token/L1,L2/none/concat"])
def test_a_stream_is_read_in_batches_across_its_files(files, pictures, tmp_path, spec):
    model = make_pipeline()
    rows = list(streamed(files, tmp_path).map(model.as_map_fn(spec), batched=True, batch_size=5))
    assert [row["label"] for row in rows] == [*range(COUNT)]
    found = np.array([row["features"] for row in rows], np.float32)
    np.testing.assert_allclose(found, model.features(pictures, spec), rtol=1e-4, atol=1e-5)


def test_only_what_is_asked_for_is_read(files, tmp_path, monkeypatch):
    model, read = make_pipeline(), []
    features = type(model).features
    monkeypatch.setattr(
        type(model), "features", lambda self, images, *a, **k: read.extend(images) or features(self, images, *a, **k)
    )
    rows = streamed(files, tmp_path).map(model.as_map_fn(), batched=True, batch_size=3).take(4)
    assert len(list(rows)) == 4
    assert len(read) == 6


def test_a_stream_goes_on_where_it_was_left(files, pictures, tmp_path):
    model = make_pipeline()
    mapped = streamed(files, tmp_path).map(model.as_map_fn(), batched=True, batch_size=2)
    seen = []
    for row in mapped:
        seen.append(row)
        if len(seen) == 4:
            break
    state = mapped.state_dict()
    again = streamed(files, tmp_path).map(model.as_map_fn(), batched=True, batch_size=2)
    again.load_state_dict(state)
    rows = [*seen, *again]
    assert [row["label"] for row in rows] == [*range(COUNT)]
    found = np.array([row["features"] for row in rows], np.float32)
    np.testing.assert_allclose(found, model.features(pictures), rtol=1e-4, atol=1e-5)


def test_a_stream_feeds_a_loader(files, pictures, tmp_path):
    model = make_pipeline()
    mapped = streamed(files, tmp_path).map(model.as_map_fn(), batched=True, batch_size=4, remove_columns="image")
    batches = list(DataLoader(mapped.with_format("torch"), batch_size=4))
    assert [len(batch["label"]) for batch in batches] == [4, 4, 4, 2]
    found = np.concatenate([batch["features"].numpy() for batch in batches])
    np.testing.assert_allclose(found, model.features(pictures), rtol=1e-4, atol=1e-5)


def test_a_file_that_cannot_be_read_ends_no_stream(pictures):
    def rows():
        for number, picture in enumerate(pictures):
            file = io.BytesIO()
            picture.save(file, "PNG")
            content = file.getvalue()
            yield {"image": {"bytes": content[:40] if number in (2, 5) else content, "path": f"{number}.png"}}

    kinds = datasets.Features({"image": datasets.Image(decode=False)})
    model, stream = make_pipeline(), datasets.IterableDataset.from_generator(rows, features=kinds)
    mapped = stream.map(model.as_map_fn(on_error="skip"), batched=True, batch_size=7)
    with pytest.warns(SkippedImages, match=r"2\.png"):
        found = np.array([row["features"] for row in mapped], np.float32)
    assert np.isnan(found).all(1).nonzero()[0].tolist() == [2, 5]
    kept = [i for i in range(COUNT) if i not in (2, 5)]
    expected = model.features([Image.fromarray(np.asarray(pictures[i])) for i in kept])
    np.testing.assert_allclose(found[kept], expected, rtol=1e-4, atol=1e-5)
