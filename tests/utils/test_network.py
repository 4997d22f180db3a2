"""Servers that can be reached and others, and downloads without a network: one sentence, at once."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

import pytest
from huggingface_hub import constants

from randfeat.utils import network


@pytest.fixture(autouse=True)
def without_proxies(monkeypatch):
    monkeypatch.setattr(network, "getproxies", dict)
    monkeypatch.setattr(network, "_answers", {})


@pytest.fixture
def server():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


def test_a_server_that_listens_and_one_that_does_not(server):
    assert network.reachable(server)
    assert not network.reachable(f"https://127.0.0.1:{closed_port()}")
    assert not network.reachable("https://no.such.place.invalid")
    assert not network.reachable("https://a..b")


def test_an_answer_holds_for_a_while(monkeypatch, server):
    now = 1000.0
    monkeypatch.setattr(network.time, "monotonic", lambda: now)
    assert network.reachable(server)
    monkeypatch.setattr(network, "_connects", lambda place: False)
    assert network.reachable(server)
    now += network.KNOWN_FOR + 1
    assert not network.reachable(server)


def test_a_proxy_is_asked_in_place_of_the_server(monkeypatch, server):
    monkeypatch.setattr(network, "proxy_bypass", lambda host: False)
    for proxy, answer in ((server, True), (f"127.0.0.1:{closed_port()}", False), ("socks5://127.0.0.1:9", True)):
        for scheme in ("https", "all"):
            monkeypatch.setattr(network, "getproxies", lambda proxy=proxy, scheme=scheme: {scheme: proxy})
            assert network.reachable("https://no.such.place.invalid") == answer
    monkeypatch.setattr(network, "proxy_bypass", lambda host: True)
    assert not network.reachable("https://no.such.place.invalid")


def test_a_name_that_is_looked_up_for_ever(monkeypatch):
    monkeypatch.setattr(network, "PATIENCE", 0.1)

    def look_up(*place, **how):
        time.sleep(2)
        raise OSError

    monkeypatch.setattr(network.socket, "getaddrinfo", look_up)
    start = time.monotonic()
    assert not network.reachable("https://huggingface.co")
    assert time.monotonic() - start < 1.5


def test_an_address_that_leads_nowhere_does_not_hide_another(monkeypatch):
    monkeypatch.setattr(network, "PATIENCE", 1.0)

    def connect_or_wait(address, patience):
        if address[0] == "::2":
            time.sleep(3)
            raise TimeoutError
        connected = socket.socket()
        connected.connect(address)
        return connected

    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        found = [(0, 0, 0, "", ("::2", port, 0, 0)), (0, 0, 0, "", ("127.0.0.1", port))]
        monkeypatch.setattr(network.socket, "getaddrinfo", lambda *place, **how: found)
        monkeypatch.setattr(network.socket, "create_connection", connect_or_wait)
        assert network.reachable(f"https://two.invalid:{port}")


@pytest.mark.parametrize(("there", "wanted"), [(True, False), (False, True)])
def test_the_hub_library_is_offline_only_in_the_block(monkeypatch, there, wanted):
    monkeypatch.setattr(network, "reachable", lambda address: there)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with network.hub_or_cache():
        during = constants.HF_HUB_OFFLINE
    assert (during, constants.HF_HUB_OFFLINE) == (wanted, False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # as HF_HUB_OFFLINE=1 makes it
    with network.hub_or_cache():
        assert constants.HF_HUB_OFFLINE


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["unreachable", "offline"])
def test_the_real_libraries_say_one_sentence_at_once(tmp_path, mode):
    """Models and tokenizers of the hub, of timm and of open_clip, and a data set, with a hub that refuses connections
    or with HF_HUB_OFFLINE: none waits, and beside imports none computes for long.
    """
    code = """
import time
slept = []
time.sleep = slept.append
import randfeat, datasets, randfeat.features.timm_encoder, randfeat.features.open_clip_encoder
import randfeat.pipeline.pipeline
from randfeat.data.sources import open_source
for call in (
    lambda: randfeat.load("arpg-l"),
    lambda: randfeat.load("nobody/nothing"),
    lambda: randfeat.load_tokenizer("llamagen-vq16"),
    lambda: randfeat.open_encoder("timm:resnet18"),
    lambda: randfeat.open_encoder("open_clip:ViT-B-32/laion2b_s34b_b79k"),
    lambda: open_source("nobody/nothing", "train"),
):
    start = time.process_time()
    try: call()
    except ConnectionError as error:
        print(time.process_time() - start, sum(slept), str(error).replace(chr(10), "|"))
"""
    alone = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    alone |= {"HF_HOME": str(tmp_path), "NO_PROXY": "*"}
    alone |= {"HF_ENDPOINT": f"http://127.0.0.1:{closed_port()}"} if mode == "unreachable" else {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=alone, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 6
    assert "Retry" not in done.stderr
    assert "thrown while requesting" not in done.stderr
    for line in lines:
        computed, slept, said = line.split(" ", 2)
        assert "could not be" in said
        assert "|" not in said
        assert float(computed) < 2  # seconds of a processor, whatever else runs
        assert float(slept) == 0  # the libraries' own retries sleep for 23 seconds
