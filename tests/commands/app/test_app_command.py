"""`randfeat app`: it starts, says where, and ends."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
import tiny
import torch

from randfeat import Pipeline, cli
from randfeat.commands.app import server
from randfeat.tokenizers import PatchTokenizer

# notes whom a process talks to, or looks up
LISTEN = """
import os, socket
def note(host):
    with open(os.environ["CALLED"], "a") as file:
        print(host, file=file)
connect, look_up = socket.socket.connect, socket.getaddrinfo
def noted(self, address):
    note(address[0] if isinstance(address, tuple) else "127.0.0.1")
    return connect(self, address)
def looked_up(host, *more, **options):
    note(host)
    return look_up(host, *more, **options)
socket.socket.connect, socket.getaddrinfo = noted, looked_up
"""


@contextlib.contextmanager
def running(*arguments, **environment):
    """The command in a process of its own, and the address that it prints."""
    command = [sys.executable, "-m", "randfeat", "app", "--no-browser", "--device", "cpu", "--port", "0", *arguments]
    # a shell that starts something in the background has it ignore Ctrl-C
    hear = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment
        )
    finally:
        signal.signal(signal.SIGINT, hear)
    with process:
        try:
            assert process.stdout is not None
            yield process, re.match(r"(http://127\.0\.0\.1:\d+/) is open, on cpu", process.stdout.readline())[1]
        finally:
            process.kill()


def slow(directory):
    """A model that takes a minute to classify a picture."""
    tokenizer = PatchTokenizer.fit(torch.rand(2, 1, 48, 48), 32, 2)
    size = dict(vocab_size=32, num_classes=50, embed_dim=256, depth=4, num_heads=4, ffn_dim=512)
    Pipeline(tokenizer, tiny.model("randar", (24, 24), **size)).save(directory)


@pytest.mark.slow
def test_ctrl_c_ends_it_while_it_computes_and_leaves_nothing(place, visit, tmp_path):
    slow(place / "slow")
    (tmp_path / "sitecustomize.py").write_text(LISTEN)
    environment = {"TMPDIR": str(tmp_path), "PYTHONPATH": str(tmp_path), "CALLED": str(tmp_path / "called")}
    with running("--model", str(place / "slow"), **environment) as (process, address):
        page = visit(address, "Sample")
        page.press("Sample")
        page.panel.locator("progress").wait_for()
        page.press("Stop")
        page.page.wait_for_timeout(500)
        before = page.panel.locator("figcaption").first.inner_text()
        page.open("Classify")
        page.drop(place / "plain" / "0000.png")
        page.press("Classify")
        page.panel.locator("progress").wait_for()
        page.open("Sample")
        assert page.panel.locator("figcaption").first.inner_text() == before  # it was stopped
        assert len(list(tmp_path.glob("randfeat-app-*"))) == 1
        page.forgive()
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=20)[1] == "\nstopped\n"
        assert process.returncode == 0
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(address)
    assert not list(tmp_path.glob("randfeat-app-*"))
    called = (tmp_path / "called").read_text().split() if (tmp_path / "called").exists() else []
    assert [one for one in called if not one.startswith("127.0.0.1")] == []  # the server asks nobody, either


def test_it_opens_a_browser_where_there_is_a_screen(place, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)

    class Ended:
        def join(self):
            raise KeyboardInterrupt

    monkeypatch.setattr(server, "served", lambda *_: contextlib.nullcontext(Ended()))
    monkeypatch.setattr(server, "computes", lambda: False)
    command = ["app", "--model", str(place / "randar"), "--port", "0", "--device", "cpu"]
    for display, more, times in (("", [], 0), (":0", ["--no-browser"], 0), (":0", [], 1)):
        monkeypatch.setenv("DISPLAY", display)
        monkeypatch.setenv("WAYLAND_DISPLAY", "")
        monkeypatch.setattr(sys, "platform", "linux")
        assert cli.main([*command, *more]) == 0
        said = capsys.readouterr()
        assert said.err == "\nstopped\n"
        assert len(opened) == times
    assert said.out == f"{opened[0]} is open, on cpu; Ctrl-C ends it\n"


def test_a_port_that_is_taken_is_said(place, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert cli.main(["app", "--model", str(place / "randar"), "--port", port]) == 1
    expected = f"randfeat app: port {port} is taken: choose another with --port, or 0 for one that is free\n"
    assert capsys.readouterr().err == expected
    assert cli.main(["app", "--model", str(place / "randar"), "--port", "99999"]) == 1
    assert "a port is a number from 0 to 65,535, got 99999" in capsys.readouterr().err


def test_only_this_machine_is_listened_to():
    with server.bound(0) as listening:
        assert listening.getsockname()[0] == "127.0.0.1"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "there is nothing to show: give --index, --model or both"),
        (["--index", "nowhere"], "nowhere is no index"),
        (["--model", "nowhere.pt"], "there is no file or directory nowhere.pt"),
        (["--model", "m", "--device", "tpu"], "there is no device 'tpu' here"),
    ],
)
def test_bad_arguments_are_one_sentence(arguments, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["app", "--port", "0", "--no-browser", *arguments]) == 1
    said = capsys.readouterr().err
    assert says in said
    assert len(said.splitlines()) == 1


def test_without_gradio_it_says_how_to_install_it(place, tmp_path):
    (tmp_path / "gradio.py").write_text("raise ModuleNotFoundError(\"No module named 'gradio'\", name='gradio')")
    command = [sys.executable, "-m", "randfeat", "app", "--model", str(place / "randar")]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(tmp_path)}, check=False
    )
    assert done.returncode == 1
    assert done.stderr == "randfeat app: the page needs gradio: pip install 'randfeat[app]'\n"


def test_nobody_is_told_who_uses_it():
    import gradio

    assert not gradio.analytics.analytics_enabled()
