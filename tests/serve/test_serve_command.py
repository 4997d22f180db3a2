"""`randfeat serve` in a process of its own, asked over a socket."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from asking import SPECS, as_form, bad_requests

import randfeat
from randfeat import cli
from randfeat.commands import serve


@contextlib.contextmanager
def running(*arguments, **environment):
    """The command, and the address that it prints."""
    command = [sys.executable, "-m", "randfeat", "serve", "--device", "cpu", "--port", "0", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"} | environment
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            said = re.match(r"(http://[^ ]+) serves .+, on cpu; Ctrl-C ends it", process.stdout.readline())
            assert said, process.stderr.read()
            yield process, said[1]
        finally:
            process.kill()


def test_it_serves_many_at_once_and_ends_when_all_is_answered(model, index, pictures, files):
    expected = randfeat.load(model).features(pictures, SPECS[0])
    with running(model, "--index", index, "--batch-size", 16) as (process, address):
        body = {"format": "npy"}

        def ask(number):
            with httpx.Client(timeout=60) as client:
                sent = as_form(files[number % 4 :: 4])
                answer = client.post(f"{address}/v1/features", files=sent, data=body)
            answer.raise_for_status()
            np.testing.assert_allclose(
                np.load(io.BytesIO(answer.content)), expected[number % 4 :: 4], rtol=1e-4, atol=1e-5
            )
            return True

        with ThreadPoolExecutor(16) as threads:
            assert all(threads.map(ask, range(48)))
        found = httpx.post(f"{address}/v1/search", files=as_form(files[:2]), data={"k": "1"}, timeout=60).json()
        assert [matches[0]["path"] for matches in found["matches"]] == ["zoo/0.png", "zoo/1.png"]
        broken = {"content": b"no form", "headers": {"content-type": "multipart/form-data; boundary=x"}}
        assert httpx.post(f"{address}/v1/features", **broken, timeout=60).status_code == 400
        late = threading.Thread(target=lambda: slow.append(ask_slowly(address, files)))
        slow: list[int] = []
        late.start()
        while 'path="/v1/classify"' not in figures(address) and "randfeat_batch" not in figures(address):
            time.sleep(0.01)
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        late.join()
        assert slow == [200]
        assert process.wait(60) == 0
        assert process.stderr.read() == ""


def ask_slowly(address, files):
    """A request that takes a while, of which the end finds some left to do."""
    many = files * 5
    return httpx.post(f"{address}/v1/classify", files=as_form(many), data={"orders": "64"}, timeout=60).status_code


def figures(address):
    return httpx.get(f"{address}/metrics", timeout=60).text


def test_others_need_a_token(model, files):
    with running(model, "--host", "0.0.0.0", "--allow-host", "127.0.0.1", RANDFEAT_TOKEN="secret") as (
        process,
        address,
    ):
        address = address.replace("0.0.0.0", "127.0.0.1")
        assert httpx.post(f"{address}/v1/features", files=as_form(files), timeout=60).status_code == 401
        with httpx.Client(headers={"authorization": "Bearer secret"}, timeout=60) as client:
            assert client.post(f"{address}/v1/features", files=as_form(files)).status_code == 200
            assert client.get(f"{address}/healthz", headers={"host": "features.example"}).status_code == 400
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from Linux's /proc")
def test_bad_requests_leave_nothing_in_memory(model, index, files, tmp_path):
    limits = ["--max-size", 1, "--max-pixels", 1 << 20, "--max-images", 16]
    with running(model, "--index", index, *limits) as (process, address), httpx.Client(timeout=60) as client:

        def ask_all():
            for path, request, status in bad_requests(tmp_path, files[0]):
                if status != 413:  # of bodies that are sent to their end
                    assert client.post(f"{address}{path}", **request).status_code == status
            large = {"content": bytes((1 << 20) + 1), "headers": {"content-type": "application/json"}}
            with contextlib.suppress(httpx.NetworkError):  # the rest is not read
                assert client.post(f"{address}/v1/features", **large).status_code == 413
            assert client.post(f"{address}/v1/features", files=as_form(files)).status_code == 200

        ask_all()
        warm = memory_of(process.pid)
        for _ in range(3):
            ask_all()
        assert memory_of(process.pid) <= 1.1 * warm
        assert 'status="5' not in figures(address)


def memory_of(process):
    """Pages of a process that are in memory."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1])


@pytest.mark.slow
def test_the_description_provokes_no_error(model, index, tmp_path):
    """Requests that schemathesis makes of the OpenAPI description, right ones and wrong ones."""
    pytest.importorskip("schemathesis", reason="schemathesis is not installed: pip install 'randfeat[test]'")
    with running(model, "--index", index) as (_, address):
        program = "import sys; from schemathesis.cli import schemathesis; sys.exit(schemathesis())"
        how = ["--checks", "not_a_server_error", "--max-examples", "25", "--seed", "1", "--generation-deterministic"]
        command = [sys.executable, "-c", program, "run", f"{address}/openapi.json", *how]
        made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
        assert made.returncode == 0, made.stdout[-4000:] + made.stderr[-2000:]
        assert httpx.get(f"{address}/healthz", timeout=60).status_code == 200
        assert 'status="5' not in figures(address)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--host", "0.0.0.0"], "set a token in the environment variable RANDFEAT_TOKEN"),
        (["--port", "70000"], "a port is a number from 0 to 65,535"),
        (["--queue", "0"], "queue"),
        (["--host", "192.0.2.1"], "set a token"),
        (["--spec", "raster/causal"], "has 2 parts"),
        (["--index", "nowhere"], "nowhere"),
    ],
)
def test_errors_are_one_sentence(words, said, model, capsys, monkeypatch):
    monkeypatch.delenv(serve.TOKEN, raising=False)
    assert cli.main(["serve", str(model), "--port", "0", *words]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_taken_port_is_an_error(model, capsys):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert cli.main(["serve", str(model), "--port", str(taken.getsockname()[1])]) == 1
    assert "is taken: choose another with --port" in capsys.readouterr().err


def test_names_by_which_it_is_asked():
    assert serve.allowed_hosts("127.0.0.1", [], None) == ["localhost", "127.0.0.1"]
    assert serve.allowed_hosts("::1", ["here"], None) == ["here"]
    assert serve.allowed_hosts("192.0.2.1", [], "secret") == ["192.0.2.1"]
    assert serve.allowed_hosts("0.0.0.0", ["*"], "secret") == ["*"]
    with pytest.raises(ValueError, match="say with --allow-host"):
        serve.allowed_hosts("0.0.0.0", [], "secret")


def test_without_the_extra_the_error_says_how_to_get_it(model, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert cli.main(["serve", str(model)]) == 1
    assert "pip install 'randfeat[serve]'" in capsys.readouterr().err
