"""Answers of the service are what Python returns, in every form of request."""

from __future__ import annotations

import io
import re
from base64 import b64decode, b64encode

import numpy as np
import pytest
import tiny
import torch
from asking import HOST, SPECS, as_form
from fastapi.testclient import TestClient
from PIL import Image
from pipelines import NAMES, make_sampler

import randfeat
from randfeat import Index, Pipeline
from randfeat.index.query import Filter
from randfeat.serve.application import NPY, application
from randfeat.serve.opening import open_service
from randfeat.tokenizers import PatchTokenizer

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.mark.parametrize("spec", [None, *SPECS])
def test_features_in_each_form(client, model, pictures, files, spec):
    expected = randfeat.load(model).features(pictures, spec or SPECS[0])
    options = {} if spec is None else {"spec": spec}
    by_form = client.post("/v1/features", files=as_form(files), data=options)
    assert by_form.status_code == 200
    np.testing.assert_allclose(by_form.json()["features"], expected, **CLOSE)
    body = {"images": [b64encode(content).decode() for content in files], **options}
    by_json = client.post("/v1/features", json=body)
    assert by_json.json() == {**by_form.json(), "features": by_json.json()["features"]}
    np.testing.assert_allclose(by_json.json()["features"], expected, **CLOSE)
    as_array = client.post("/v1/features", json=body | {"format": "npy"})
    assert as_array.headers["content-type"] == NPY
    found = np.load(io.BytesIO(as_array.content))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, **CLOSE)


def test_classes(client, model, pictures, files):
    found = client.post("/v1/classify", files=as_form(files), data={"orders": "4", "top": "2"}).json()["classes"]
    expected = randfeat.load(model).classify(pictures, orders=4).top(2)
    for one, best in zip(found, expected, strict=True):
        assert [each["name"] for each in one] == [each.name for each in best]
        assert [each["probability"] for each in one] == pytest.approx([each.probability for each in best], abs=1e-4)


def test_neighbours(client, index, files):
    opened = Index.open(index)
    queries = opened.read([Image.open(io.BytesIO(content)) for content in files], opened.encoder())
    where = {"k": "3", "labels": ["cat"], "paths": ["zoo/*.png"]}
    found = client.post("/v1/search", files=as_form(files), data=where).json()["matches"]
    for one, expected in zip(found, opened.search(queries, 3, Filter("cat", "zoo/*.png")), strict=True):
        assert [(each["path"], each["label"]) for each in one] == [(each.path, each.label) for each in expected]
        assert [each["score"] for each in one] == pytest.approx([each.score for each in expected], abs=1e-4)
    assert len(client.post("/v1/search", files=as_form(files[:1])).json()["matches"][0]) == 10


def test_samples(client, model):
    labels, loaded = ["cat", 2, None], randfeat.load(model)
    expected = loaded.in_range(loaded.sample(labels, seed=5))
    asked = {"labels": labels, "seed": 5}
    pngs = client.post("/v1/sample", json=asked).json()["images"]
    for png, image in zip(pngs, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(b64decode(png)))), image)
    array = client.post("/v1/sample", json={**asked, "format": "npy"}).content
    np.testing.assert_array_equal(np.load(io.BytesIO(array)), expected)


def test_health_figures_and_description(client, files, model):
    client.post("/v1/features", files=as_form(files))
    client.get("/no/such/path")
    assert client.get("/healthz").json() == {"status": "ok"}
    about = client.get("/v1/about").json()
    assert about["model"] == str(model)
    assert {*SPECS, "raster/full/query/L2/mean/mean"} == {*about["specs"]}
    assert about["index"] == 12
    figures = client.get("/metrics").text
    assert 'randfeat_requests_total{path="/v1/features",status="200"} 1.0' in figures
    assert 'randfeat_requests_total{path="other",status="404"} 1.0' in figures
    assert "randfeat_batch_images_sum 12.0" in figures
    assert "randfeat_waiting_images 0.0" in figures
    described = client.get("/openapi.json").json()["paths"]
    assert {
        "/v1/features",
        "/v1/classify",
        "/v1/search",
        "/v1/sample",
        "/v1/about",
        "/healthz",
        "/metrics",
    } == described.keys()
    assert {*described["/v1/features"]["post"]["requestBody"]["content"]} == {"application/json", "multipart/form-data"}
    page = client.get("/docs").text
    assert "://" not in page.replace(HOST, "").replace("http://www.w3.org", "")
    for script in re.findall(r'(?:src|href)="([^"]+)"', page):
        assert client.get(script).status_code == 200


def test_a_service_offers_what_its_model_can_do(files):
    with TestClient(application(open_service(make_sampler(num_classes=0))), base_url=HOST) as client:
        for path in ("/v1/classify", "/v1/search"):
            assert client.post(path, files=as_form(files)).status_code == 404
        assert client.post("/v1/features", files=as_form(files)).status_code == 200


def test_a_model_of_values_reads_them():
    values = np.random.default_rng(0).integers(0, 65535, (4, 6, 2), np.uint16)
    tokenizer = PatchTokenizer.fit(torch.rand(6, 2, 4, 6), 7, 2, value_range=(0, 65535))
    model = Pipeline(tokenizer, tiny.model("randar", (2, 3)), NAMES)
    file = io.BytesIO()
    np.save(file, values)
    with TestClient(application(open_service(model)), base_url=HOST) as client:
        found = client.post("/v1/features", files=as_form([file.getvalue()])).json()["features"]
        assert client.post("/v1/classify", files=as_form([file.getvalue()])).status_code == 404
        assert client.post("/v1/sample", json={"labels": [None]}).status_code == 422
        drawn = client.post("/v1/sample", json={"labels": [None], "format": "npy"}).content
    np.testing.assert_allclose(found, model.features(values[None]), **CLOSE)
    assert np.load(io.BytesIO(drawn)).shape == (1, 4, 6, 2)
