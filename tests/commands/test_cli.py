"""The front door: help is instant, an error is one sentence, Ctrl-C loses nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from randfeat import cli
from randfeat.commands.index import ACTIONS
from randfeat.commands.probe import PROBES
from randfeat.commands.tokenizer import ACTIONS as TOKENIZER_ACTIONS

HEAVY = (
    *("torch", "numpy", "faiss", "sklearn", "matplotlib", "datasets", "jinja2", "gradio", "timm", "pandas", "scipy"),
    *("pyarrow", "PIL", "safetensors", "huggingface_hub", "skimage"),
)

HELPS = [
    ["--help"],
    *([name, "--help"] for name in cli.COMMANDS),
    *(["probe", name, "--help"] for name in PROBES),
    *(["index", name, "--help"] for name in ACTIONS),
    *(["tokenizer", name, "--help"] for name in TOKENIZER_ACTIONS),
]


@pytest.mark.parametrize("arguments", HELPS, ids=" ".join)
def test_help_teaches_and_imports_nothing_heavy(arguments):
    code = (
        "import sys; from randfeat.cli import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        f"print('heavy:', [m for m in {HEAVY!r} if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "heavy: []" in shown
    assert len(shown.splitlines()) > 5


@pytest.mark.parametrize("source", ["arpg-l", "llamagen-vq16"])
def test_info_imports_no_more_than_it_needs(source):
    heavy = ("timm", "datasets", "faiss", "sklearn", "matplotlib", "pandas", "pyarrow", "scipy", "torch._dynamo")
    code = (
        f"import sys; from randfeat.cli import main; assert main(['info', {source!r}]) == 0\n"
        f"print('heavy:', [m for m in {heavy!r} if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "heavy: []" in shown


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ([], "required"),
        (["nonsense"], "invalid choice"),
        (["demo", "--fast", "--full"], "not allowed with"),
        (["demo", "--nonsense"], "randfeat demo: error: unrecognized"),
        (["probe", "knn", "store", "-o", "out", "--nonsense"], "randfeat probe knn: error: unrecognized"),
    ],
)
def test_wrong_arguments_are_refused(wrong, says, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(wrong)
    assert stop.value.code == 2
    assert says in capsys.readouterr().err


def test_an_error_is_one_sentence_and_a_traceback_only_on_request(tmp_path, capsys):
    taken = tmp_path / "file"
    taken.write_text("in the way")
    assert cli.main(["demo", "--out", str(taken)]) == 1
    message = capsys.readouterr().err
    assert message.startswith("randfeat demo: ")
    assert len(message.splitlines()) == 1
    with pytest.raises(FileExistsError):
        cli.main(["demo", "--out", str(taken), "--debug"])


def test_a_command_may_end_with_a_code_of_its_own(monkeypatch):
    from randfeat.commands import demo

    for code in (None, 0, 3):
        monkeypatch.setattr(demo, "run", lambda args, code=code: code)
        assert cli.main(["demo"]) == (code or 0)


def test_ctrl_c_says_how_to_resume(tmp_path, capsys, monkeypatch):
    from randfeat.commands import demo

    def stop(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "run", stop)
    assert cli.main(["demo", "--out", str(tmp_path)]) == 130
    assert demo.HOW_TO_RESUME in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_is_no_error():
    code = (
        "import sys; from randfeat import cli; from randfeat.commands import demo\n"
        "demo.run = lambda args: print('x' * 10**6)\n"
        "sys.exit(cli.main(['demo']))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        assert run.stdout.read(1) == b"x"
        run.stdout.close()
        assert run.stderr.read() == b""
        assert run.wait() == 1


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FileNotFoundError(2, "No such file or directory", "there/x.html"), "there/x.html: No such file or directory"),
        (OSError(28, "No space left on device"), "No space left on device: make some room and run the same again"),
        (FileExistsError("out is a file: choose a folder"), "out is a file: choose a folder"),
    ],
)
def test_an_error_of_the_system_is_a_sentence(capsys, monkeypatch, error, said):
    def fail(args):
        raise error

    monkeypatch.setattr("randfeat.commands.info.run", fail)
    assert cli.main(["info", "x"]) == 1
    assert f"randfeat info: {said}" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["sample", "model"], ["inpaint", "model", "a.png", "--box", "0", "0", "1", "1"]])
def test_a_folder_of_results_has_no_name_of_a_file(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        cli.main([*words, "-o", "made.png"])
    assert "made.png is the name of a file, and a folder of files is written: leave .png out" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_wrong_recipe_is_told_before_the_data_are_looked_for(capsys):
    assert cli.main(["pretrain", "--config", "nope", "--data", "nowhere", "-o", "run"]) == 1
    assert "there is no recipe 'nope'" in capsys.readouterr().err
