"""Features in Ray Data: rows of any form, those that cannot be read, and a worker that is killed."""

from __future__ import annotations

import io
import subprocess
import sys
import textwrap

import damaged
import numpy as np
import pytest
from PIL import Image

from randfeat.features.opening import open_encoder
from randfeat.features.ray import RayFeatures

COUNT = 12


@pytest.fixture(scope="module")
def pictures():
    return [damaged.noise(9, 12, seed=seed) for seed in range(COUNT)]


def as_file(picture):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("form", ["bytes", "arrays", "paths"])
def test_images_in_each_form(form, model, pictures, tmp_path):
    if form == "bytes":
        column = np.array([as_file(one) for one in pictures], object)
    elif form == "arrays":
        column = np.stack(pictures)
    else:
        for number, picture in enumerate(pictures):
            Image.fromarray(picture).save(tmp_path / f"{number}.png")
        column = np.array([str(tmp_path / f"{number}.png") for number in range(COUNT)], object)
    spec = "raster/causal/token/L1/grid2/mean"
    read = RayFeatures(model, spec, image="picture", output="states", device="cpu")
    made = read({"picture": column, "id": np.arange(COUNT)})
    expected = open_encoder(model, [spec]).features([Image.fromarray(one) for one in pictures])[0]
    np.testing.assert_allclose(made["states"], expected, rtol=1e-4, atol=1e-5)
    assert made["states"].dtype == np.float32
    assert made["error"].tolist() == [None] * COUNT
    assert made["id"].tolist() == [*range(COUNT)]


def test_an_image_that_cannot_be_read_is_a_row_with_its_reason(model, pictures):
    files = [as_file(one) for one in pictures]
    files[2], files[5] = files[2][:60], b"a note"
    read = RayFeatures(model, device="cpu")
    made = read({"image": np.array(files, object)})
    assert [made["error"][row] for row in (2, 5)] == ["truncated", "text, no picture"]
    assert np.isnan(made["features"]).any(1).nonzero()[0].tolist() == [2, 5]
    assert [error for row, error in enumerate(made["error"]) if row not in (2, 5)] == [None] * (COUNT - 2)
    alone = read({"image": np.array(files[5:6], object)})
    assert alone["features"].shape == made["features"][:1].shape
    assert alone["error"].tolist() == ["text, no picture"]


def test_an_image_without_finite_features_is_a_row_with_its_reason(model, pictures, monkeypatch):
    read = RayFeatures(model, device="cpu")
    right = read.encoder.encode

    def encode(batch):
        rows = right(batch)
        rows[0][(batch.flatten(1).amax(1) == batch.flatten(1).amin(1)).numpy(), 0] = np.inf
        return rows

    monkeypatch.setattr(read.encoder, "encode", encode)
    files = [as_file(one) for one in pictures]
    files[1], files[4] = as_file(np.zeros((9, 12, 3), np.uint8)), b"a note"
    made = read({"image": np.array(files, object)})
    assert {row: error for row, error in enumerate(made["error"]) if error} == {
        1: "its features are not finite",
        4: "text, no picture",
    }
    assert np.isnan(made["features"]).all(1).nonzero()[0].tolist() == [1, 4]


def test_another_column_is_named(model):
    with pytest.raises(ValueError, match="there is no column 'image': name one of picture"):
        RayFeatures(model, device="cpu")({"picture": np.zeros((1, 4, 6, 3), np.uint8)})


KILLED = """
import os, sys
import numpy as np
import ray
from randfeat import open_encoder
from randfeat.features.ray import RayFeatures

model, marker, count = sys.argv[1], sys.argv[2], int(sys.argv[3])

class Dying(RayFeatures):
    def __call__(self, batch):
        if 40 in batch["id"] and not os.path.exists(marker):
            open(marker, "w").close()
            os._exit(9)
        return super().__call__(batch)

ray.init(num_cpus=2, include_dashboard=False, logging_level="error", log_to_driver=False)
images = np.random.default_rng(0).integers(0, 256, (count, 9, 12, 3), np.uint8)
rows = ray.data.from_items([{"id": i, "image": images[i].tobytes()} for i in range(count)], override_num_blocks=8)

def decoded(row):
    return {"id": row["id"], "image": np.frombuffer(row["image"], np.uint8).reshape(9, 12, 3)}

made = rows.map(decoded).map_batches(
    Dying, fn_constructor_kwargs={"model": model, "device": "cpu"}, concurrency=2, batch_size=16, batch_format="numpy"
).take_all()
assert os.path.exists(marker), "no worker was killed"
made.sort(key=lambda row: row["id"])
assert [row["id"] for row in made] == list(range(count))
expected = open_encoder(model).features(list(images))[0]
found = np.stack([row["features"] for row in made])
assert np.abs(found - expected).max() <= 1e-5, np.abs(found - expected).max()
print("every image once, within", np.abs(found - expected).max())
"""


@pytest.mark.slow
def test_a_killed_worker_loses_no_image(model, tmp_path):
    pytest.importorskip("ray", reason="ray is not installed: pip install 'randfeat[ray]'")
    script = tmp_path / "killed.py"
    script.write_text(textwrap.dedent(KILLED))
    command = [sys.executable, str(script), model, str(tmp_path / "marker"), "200"]
    made = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert made.returncode == 0, made.stderr[-4000:]
    assert "every image once" in made.stdout
