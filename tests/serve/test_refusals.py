"""Bad requests of every kind are answered with a 4xx and a reason, and the service answers good ones after them."""

from __future__ import annotations

import json
import threading
import time

import pytest
from asking import HOST, as_form, bad_requests, wide_png
from fastapi.testclient import TestClient
from PIL import Image

from randfeat.serve.application import application
from randfeat.serve.limits import Limits


# starlette leaves the file of a part without an end to Python, which closes it and warns
@pytest.mark.filterwarnings("ignore:Exception ignored in.*SpooledTemporaryFile:pytest.PytestUnraisableExceptionWarning")
def test_bad_requests_are_refused_and_the_service_goes_on(client, files, tmp_path):
    before, asked = client.post("/v1/features", files=as_form(files)).json(), 0
    for path, request, status in bad_requests(tmp_path, files[0]):
        answer = client.post(path, **request)
        assert answer.status_code == status, (path, str(request)[:300], answer.text)
        reason = answer.json()["detail"]
        assert isinstance(reason, str)
        assert 0 < len(reason) < 8000
        asked += 1
    assert asked >= 200
    assert client.get("/healthz").status_code == 200
    assert client.post("/v1/features", files=as_form(files)).json() == before
    figures = client.get("/metrics").text
    assert 'status="5' not in figures
    assert "randfeat_waiting_images 0.0" in figures


def test_the_reason_names_the_image(client, files):
    answer = client.post(
        "/v1/features", files=[("images", ("cat.png", files[0])), ("images", ("dog.png", files[1][:60]))]
    )
    assert answer.json() == {"detail": "dog.png cannot be read: truncated"}
    answer = client.post("/v1/features", files=as_form([wide_png()]))
    assert answer.json() == {"detail": "0.png cannot be read: more than 1,048,576 pixels"}


def test_pillow_has_its_own_limit_again(service):
    limit = Image.MAX_IMAGE_PIXELS
    with TestClient(application(service, Limits(pixels=100)), base_url=HOST):
        assert Image.MAX_IMAGE_PIXELS == 50
    assert limit == Image.MAX_IMAGE_PIXELS


def test_other_paths_methods_and_hosts(client, files):
    assert client.post("/v1/nothing").status_code == 404
    assert client.get("/v1/features").status_code == 405
    for tricky in ("/v1/../healthz/..", "/static/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd"):
        assert client.get(tricky).status_code in (404, 405)
    for host in ("evil.example", "127.0.0.1.evil.example", ""):
        assert client.post("/v1/features", files=as_form(files), headers={"host": host}).status_code == 400
    assert client.get("/healthz", headers={"host": "localhost:8000"}).status_code == 200
    foreign = {"origin": "https://evil.example"}
    assert client.post("/v1/features", files=as_form(files), headers=foreign).status_code == 403
    assert client.post("/v1/features", files=as_form(files), headers={"origin": HOST}).status_code == 200


def test_a_token_is_asked_for(service, files):
    form = {"files": as_form(files[:1])}
    with TestClient(application(service, token="a secret"), base_url=HOST) as client:
        for value in (None, "", "Bearer", "Bearer a secre", "Basic a secret", "Bearer \xe9", "a secret"):
            headers = {} if value is None else {"authorization": value.encode("latin-1")}
            answer = client.post("/v1/features", **form, headers=headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
        assert client.get("/metrics").status_code == client.get("/v1/about").status_code == 401
        assert client.get("/healthz").status_code == client.get("/docs").status_code == 200
        assert "HTTPBearer" in client.get("/openapi.json").json()["components"]["securitySchemes"]
        for kind in ("Bearer", "bearer"):
            answer = client.post("/v1/features", **form, headers={"authorization": f"{kind} a secret"})
            assert answer.status_code == 200


def test_too_much_is_answered_with_429_and_may_be_sent_again(client, files, service, monkeypatch):
    """Works wait for a thread that is held up: the queue fills, and later all that was taken is answered."""
    free, begun = threading.Event(), threading.Event()
    encoder = service.default
    encode = type(encoder).encode

    def held(self, batch):
        begun.set()
        assert free.wait(200)
        return encode(self, batch)

    monkeypatch.setattr(type(encoder), "encode", held)
    answers = []

    def ask():
        answers.append(client.post("/v1/features", files=as_form(files)).status_code)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    threads[0].start()
    assert begun.wait(200)
    for thread in threads[1:]:
        thread.start()
    while len(answers) < 2:  # 8 of the first 12 images are computed; 4 and three times 12 wait, and no more than 40 may
        assert threads[0].is_alive()
        time.sleep(0.01)
    assert answers == [429, 429]
    refused = client.post("/v1/features", files=as_form(files))
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "1"
    assert "wait" in refused.json()["detail"]
    free.set()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200] * 4 + [429] * 2
    assert client.post("/v1/features", files=as_form(files)).status_code == 200


def test_what_takes_too_long_is_given_up(service, files, monkeypatch):
    free = threading.Event()
    encoder = service.default
    encode = type(encoder).encode
    monkeypatch.setattr(type(encoder), "encode", lambda self, batch: free.wait(200) and encode(self, batch))
    with TestClient(application(service, Limits(seconds=1)), base_url=HOST) as client:
        answer = client.post("/v1/features", files=as_form(files))
        assert answer.status_code == 503
        assert answer.json() == {"detail": "the request is not answered within 1 s"}
        free.set()
        assert client.post("/v1/features", files=as_form(files)).status_code == 200


def test_a_limit_is_a_whole_number():
    with pytest.raises(ValueError, match="queue"):
        Limits(queue=0)


def test_json_of_the_description_is_valid(client):
    schema = json.loads(client.get("/openapi.json").content)
    assert schema["paths"]["/v1/search"]["post"]["responses"].keys() >= {"413", "422", "429"}
