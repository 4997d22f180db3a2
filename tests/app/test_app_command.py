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

from randfeat import cli
from randfeat.app import serving


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


def ended(process, by):
    process.send_signal(by)
    _, said = process.communicate(timeout=20)
    return process.returncode, said


def test_ctrl_c_ends_it_and_leaves_nothing(place, tmp_path):
    with running("--index", str(place / "digits.index"), TMPDIR=str(tmp_path)) as (process, address):
        assert b"randfeat" in urllib.request.urlopen(address).read()
        assert len(list(tmp_path.glob("randfeat-app-*"))) == 1
        assert ended(process, signal.SIGINT) == (0, "\nstopped\n")
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(address)
    assert not list(tmp_path.glob("randfeat-app-*"))


def test_it_ends_while_somebody_is_served(place, visit):
    with running("--model", str(place / "randar")) as (process, address):
        page = visit(address, "Classify")
        page.drop(place / "plain" / "0000.png")
        page.panel.get_by_role("button", name="Remove Image").wait_for()
        page.panel.get_by_label("number input for Orders").fill("64")
        page.press("Classify")
        page.page.wait_for_function("document.querySelector('progress')")
        assert ended(process, signal.SIGTERM) == (0, "\nstopped\n")
        page.errors.clear()  # which say that it is gone


def test_a_port_that_is_taken_is_said(place, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert cli.main(["app", "--model", str(place / "randar"), "--port", port]) == 1
    expected = f"randfeat app: port {port} is taken: choose another with --port, or 0 for one that is free\n"
    assert capsys.readouterr().err == expected
    assert cli.main(["app", "--model", str(place / "randar"), "--port", "99999"]) == 1
    assert "port must be" in capsys.readouterr().err


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
