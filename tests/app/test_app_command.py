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
from randfeat.app import serving
from randfeat.tokenizers import PatchTokenizer


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


def test_ctrl_c_ends_it_while_it_computes_and_leaves_nothing(place, visit, tmp_path):
    slow(place / "slow")
    with running("--model", str(place / "slow"), TMPDIR=str(tmp_path)) as (process, address):
        page = visit(address, "Classify")
        page.drop(place / "plain" / "0000.png")
        page.press("Classify")
        page.panel.locator("progress").wait_for()
        assert len(list(tmp_path.glob("randfeat-app-*"))) == 1
        page.forgive()
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=20)[1] == "\nstopped\n"
        assert process.returncode == 0
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(address)
    assert not list(tmp_path.glob("randfeat-app-*"))


def test_a_port_that_is_taken_is_said(place, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert cli.main(["app", "--model", str(place / "randar"), "--port", port]) == 1
    expected = f"randfeat app: port {port} is taken: choose another with --port, or 0 for one that is free\n"
    assert capsys.readouterr().err == expected
    assert cli.main(["app", "--model", str(place / "randar"), "--port", "99999"]) == 1
    assert "a port is a number from 0 to 65,535, got 99999" in capsys.readouterr().err


def test_only_this_machine_is_listened_to():
    with serving.bound(0) as listening:
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
