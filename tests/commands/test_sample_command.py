"""`randfeat sample`: the whole of it from the command line, alone, killed, and side by side."""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tiny
import torch
from folders import contents
from pipelines import make_sampler

from randfeat import Guidance, Sampling, cli, load
from randfeat.commands import sample
from randfeat.data.decode import open_picture
from randfeat.data.images import to_pil
from randfeat.inference.extrapolation import Extrapolation


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tiny"
    make_sampler().save(path)
    return path


def parse(*arguments):
    parser = argparse.ArgumentParser()
    sample.add_arguments(parser, "sample")
    return parser.parse_args(["MODEL", *arguments])


def fields(cls):
    return {field.name for field in dataclasses.fields(cls)}


# what the flags say -----------------------------------------------------------------------------------------


def test_the_flags_are_the_fields():
    assert set(sample.SAMPLING.values()) == fields(Sampling) - {"guidance", "control_guidance"}
    assert set(sample.EXTRAPOLATION.values()) == fields(Extrapolation) - {"spatial"}
    for name in ("guidance", "spatial", "control_scale"):
        assert set(sample.guidance_flags(name).values()) == fields(Guidance)
    others = {"model", "out", "classes", "count", "balanced", "seed", "order_file", "batch_size", "device", "dtype"}
    flags = {*sample.SAMPLING, *sample.EXTRAPOLATION, *sample.guidance_flags("guidance")}
    flags |= set(sample.guidance_flags("spatial")) | set(sample.guidance_flags("control_scale"))
    assert set(vars(parse())) == flags | {"control", "control_type", "bias"} | others


def test_what_is_not_said_is_as_published():
    published = Sampling(88, "arccos", Guidance(4, "linear", 1.0, "after"), top_k=600, order="columns")
    assert sample.sampling_of(parse(), published) == published
    assert sample.extrapolation_of(parse()) is None


def test_exact_sampling_has_no_steps():
    published = Sampling(88, "arccos", Guidance(4), sweeps=2)
    assert sample.sampling_of(parse("--exact"), published) == dataclasses.replace(published, steps=None, exact=True)
    again = Sampling(exact=True, draft=5)
    assert sample.sampling_of(parse(), again) == again
    assert sample.sampling_of(parse("--draft", "9"), again).draft == 9
    assert sample.sampling_of(parse("--order", "locality", "--locality", "2", "3"), published).locality == (2, 3)
    with pytest.raises(ValueError, match="leave steps and sizes out"):
        sample.sampling_of(parse("--exact", "--steps", "9"), published)
    with pytest.raises(ValueError, match="--draft is about drafts that exact sampling checks: give --exact too"):
        sample.sampling_of(parse("--draft", "9"), published)


def test_what_is_said_takes_its_place():
    published = Sampling(88, "arccos", Guidance(4, "linear", 1.0, "after"))
    said = """
        --steps 9 --schedule linear --guidance 3 --guidance-schedule constant --guidance-start 2
        --guidance-counted before --guidance-interval 0.1 0.9 --temperature 0.5 --top-k 7 --top-p 0.9
        --order raster --within-step causal --sweeps 2
        --factor 3 --boundary 1 --blind 0.25 --spatial 2 --spatial-schedule linear --spatial-start 1.5
        --spatial-counted after --spatial-interval 0 0.5
    """
    args = parse(*said.split())
    guidance = Guidance(3, "constant", 2, "before", (0.1, 0.9))
    assert sample.sampling_of(args, published) == Sampling(9, "linear", guidance, 0.5, 7, 0.9, "raster", "causal", 2)
    spatial = Guidance(2, "linear", 1.5, "after", (0, 0.5))
    assert sample.extrapolation_of(args) == Extrapolation(3, 1, spatial, 0.25)
    for off in ("off", "1"):
        assert sample.sampling_of(parse("--guidance", off), published).guidance.off
    assert sample.sampling_of(parse("--guidance", "2"), published).guidance == Guidance(2, "linear", 1.0, "after")


def test_the_tokens_of_each_step_are_a_schedule(capsys):
    published = Sampling(88, "arccos", Guidance(4), sweeps=2)
    found = sample.sampling_of(parse("--schedule", "1,2,3"), published)
    assert found == dataclasses.replace(published, schedule=(1, 2, 3), steps=None)
    with pytest.raises(ValueError, match="3 steps, got steps=5"):
        sample.sampling_of(parse("--schedule", "1,2,3", "--steps", "5"), published)
    assert sample.sampling_of(parse("--schedule", "5"), published).schedule == (5,)
    for wrong in ("1,0,2", "1,2,", "spiral"):
        with pytest.raises(SystemExit):
            parse("--schedule", wrong)
    assert f"or the tokens of each step as 1,2,4,9, got {wrong}" in capsys.readouterr().err


# what it does -----------------------------------------------------------------------------------------------


def test_it_fills_a_folder(model, tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main(["sample", str(model), "--out", str(out), "--classes", "Cow", "0", "--count", "5"]) == 0
    said = capsys.readouterr()
    assert said.out == f"wrote {out}: look at {out / 'grid.png'} first\n"
    assert "sampling on" in said.err
    with np.load(out / "samples.npz") as archive:
        assert archive["arr_1"].tolist() == [2, 0, 2, 0, 2]
    assert cli.main(["sample", str(model), "--out", str(out), "--classes", "Cow", "0", "--count", "7"]) == 0
    assert "images (5 were there)" in capsys.readouterr().err


def test_sizes_of_steps_are_the_same_settings_again(model, tmp_path, capsys):
    command = ["sample", str(model), "--out", str(tmp_path / "out"), "--schedule", "1,2,3", "--count"]
    assert cli.main([*command, "2"]) == 0
    assert cli.main([*command, "3"]) == 0
    assert "images (2 were there)" in capsys.readouterr().err


def test_exact_samples_say_how_many_calls_they_took(model, tmp_path, capsys):
    command = ["sample", str(model), "--classes", "cow", "--count", "5", "--exact", "--sweeps", "1", "--device", "cpu"]
    for draft, most in ((0, 12.0), (4, 11.0)):
        out = tmp_path / str(draft)
        assert cli.main([*command, "--out", str(out), "--draft", str(draft)]) == 0
        said = re.match(r"network calls: (\d+\.\d) of 12 on average\nwrote ", capsys.readouterr().out)
        assert most - 6 < float(said[1]) <= most
        assert f'"draft": {draft}' in (out / "settings.json").read_text()
    pictures = [[file.read_bytes() for file in sorted((tmp_path / one / "images").iterdir())] for one in ("0", "4")]
    assert pictures[0] == pictures[1]


def test_larger_exact_samples_say_how_many_calls_they_took(model, tmp_path, capsys):
    command = ["sample", str(model), "--count", "3", "--exact", "--sweeps", "1", "--factor", "2", "--device", "cpu"]
    assert cli.main([*command, "--out", str(tmp_path / "0"), "--draft", "0", "--batch-size", "2"]) == 0
    assert "network calls: 30.0 of 30 on average\n" in capsys.readouterr().out  # 6, a sweep of 6, 18 between
    assert cli.main([*command, "--out", str(tmp_path / "9"), "--draft", "9"]) == 0
    assert 2 < float(re.match(r"network calls: (\d+\.\d) of 30", capsys.readouterr().out)[1]) < 30


@pytest.mark.parametrize("shape", [(7,), (2, 3, 7)])
def test_tokens_are_forbidden_by_a_file(model, tmp_path, capsys, shape):
    bias = np.zeros(shape)
    bias[..., [0, 1, 2, 5]] = -np.inf
    np.save(tmp_path / "bias.npy", bias)
    said = ["sample", str(model), "--classes", "dog", "cat", "cow", "--out", str(tmp_path / "out")]
    assert cli.main([*said, "--bias", str(tmp_path / "bias.npy"), "--batch-size", "2"]) == 0
    loaded = load(model)
    expected = loaded.sample(["dog", "cat", "cow"], bias=torch.from_numpy(bias))
    for number, image in enumerate(expected):
        made = np.asarray(open_picture(tmp_path / "out" / "images" / f"{number:06}.png"))
        assert (made == np.asarray(to_pil(image))).all()
    assert not torch.isin(loaded.encode(expected), torch.tensor([0, 1, 2, 5])).any()
    capsys.readouterr()
    assert cli.main(said) == 1
    assert "holds samples with bias " in capsys.readouterr().err


def test_an_order_of_ones_own(model, tmp_path):
    (tmp_path / "order.txt").write_text("5 4 3\n2, 1, 0\n")
    assert sample.read_order(tmp_path / "order.txt") == [5, 4, 3, 2, 1, 0]
    command = ["sample", str(model), "--classes", "cat", "--count", "1", "--dtype", "bfloat16", "--device", "cpu"]
    more = ["--order-file", str(tmp_path / "order.txt"), "--out", str(tmp_path / "out")]
    assert cli.main([*command, *more]) == 0
    assert '"bfloat16"' in (tmp_path / "out" / "settings.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--classes fox", "unknown class 'fox'"),
        ("--classes 3", "class 3 is outside 0..2"),
        ("--classes -1", "class -1 is outside 0..2"),
        ("--guidance nan", "guidance scale must be a finite number, got nan"),
        ("--guidance-interval 1 0", "guidance interval must be two shares"),
        ("--steps 0", "at least one step, got steps=0"),
        ("--count 0", "count must be a whole number from 1, got 0"),
        ("--batch-size 0", "batch_size must be a whole number from 1, got 0"),
        ("--temperature 0", "temperature must be above 0"),
        ("--top-p 2", "top_p must be in (0, 1]"),
        ("--order spiral", "order 'spiral' is none of RandAR's"),
        ("--order-file {twice}", "not a permutation: entry 5 of order 0, 0, occurs twice"),
        ("--order-file {words}", "words is no order: expected the raster positions of all tokens, whole numbers"),
        ("--order-file {missing}", "No such file"),
        ("--within-step group", "within_step 'group' is none of RandAR's"),
        ("--factor 1", "factor must be a whole number from 2, got 1"),
        ("--factor 2 --order-file {twice}", "an order for the grid 4 x 6 holds 24"),
        ("--blind 0.1", "--blind is for larger images: give --factor too"),
        ("--spatial-start 2", "--spatial-start is for larger images: give --factor too"),
        ("--device mps", "there is no device 'mps' here: choose auto or one of "),
        ("--seed 99999999999999999999", "seeds are numbers of 64 bits"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(model, tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    (tmp_path / "twice").write_text("0 1 2 3 4 0")
    (tmp_path / "words").write_text("first second")
    arguments = arguments.format(**{name: tmp_path / name for name in ("twice", "words", "missing")})
    before = sorted(tmp_path.iterdir())
    assert cli.main(["sample", str(model), "--out", str(tmp_path / "out"), "--device", "cpu", *arguments.split()]) == 1
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before


def test_arpg_and_a_raster_model(tmp_path, capsys):
    for name, wrong, message in (
        ("arpg", ["--factor", "1"], "factor must be a whole number from 2"),
        ("llamagen", ["--factor", "2"], "LlamaGen knows raster order alone"),
        ("llamagen", ["--steps", "2"], "LlamaGen decodes one token a step, not 5: leave steps out"),
        ("llamagen", ["--sweeps", "1"], "leave sweeps out"),
    ):
        pipeline = make_sampler()
        pipeline.generator, pipeline.sampling = tiny.model(name, (2, 3)), Sampling()
        pipeline.save(tmp_path / name)
        command = ["sample", str(tmp_path / name), "--out", str(tmp_path / "out"), "--device", "cpu"]
        assert cli.main([*command, *wrong]) == 1
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
        more = ["--within-step", "causal", "--steps", "2", "--factor", "1", "2"] if name == "arpg" else []
        assert cli.main([*command[:3], str(tmp_path / f"{name}-out"), *more, "--count", "2"]) == 0


def test_ctrl_c_and_a_full_machine_are_one_sentence(model, tmp_path, capsys, monkeypatch):
    command = ["sample", str(model), "--out", str(tmp_path / "out"), "--device", "cpu"]
    for error, code, message in (
        (KeyboardInterrupt, 130, "stopped. Run the same command again: images that are there are kept."),
        (torch.OutOfMemoryError, 1, "no room for 64 images at a time on cpu: choose a smaller --batch-size"),
    ):

        def fail(*_, error=error, **__):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr("randfeat.pipeline.sample_folder._draw", fail)
            assert cli.main(command) == code
        assert message in capsys.readouterr().err
    assert cli.main(command) == 0


# killed, and side by side -----------------------------------------------------------------------------------

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.mark.slow
def test_a_killed_run_is_gone_on_with(model, tmp_path):
    def command(out):
        more = ["--count", "150", "--batch-size", "1", "--balanced", "--device", "cpu"]
        return ["sample", str(model), "--out", str(tmp_path / out), *more]

    running = subprocess.Popen([sys.executable, "-m", "randfeat", *command("killed")], env=ENVIRONMENT)
    images, deadline = tmp_path / "killed" / "images", time.monotonic() + 60
    while not (images.is_dir() and len(list(images.glob("[0-9]*.png"))) >= 5):
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    running.send_signal(signal.SIGKILL)
    running.wait()
    there = {path: path.read_bytes() for path in images.glob("[0-9]*.png")}
    assert 5 <= len(there) < 150
    assert not (tmp_path / "killed" / "samples.npz").exists()
    for out in ("killed", "at_once"):
        assert cli.main(command(out)) == 0
    made = contents(tmp_path / "killed")
    assert made == contents(tmp_path / "at_once")
    assert all(path.read_bytes() == content for path, content in there.items())


@pytest.mark.slow
def test_two_processes_make_what_one_makes(model, tmp_path):
    def command(out):
        more = ["--count", "7", "--batch-size", "2", "--balanced", "--device", "cpu"]
        return ["sample", str(model), "--out", str(tmp_path / out), *more]

    two = [*TORCHRUN, "-m", "randfeat", *command("two")]
    said = subprocess.run(two, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert said.stdout.count("wrote") == 1
    assert cli.main(command("one")) == 0
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    with np.load(tmp_path / "two" / "samples.npz") as archive:
        assert len(archive["arr_0"]) == 7
    wrong = [*two, "--seed", "1"]  # what one refuses, all refuse, and one says so
    said = subprocess.run(wrong, env=ENVIRONMENT, capture_output=True, text=True)
    assert said.returncode
    assert said.stderr.count("randfeat sample: ") == 1
    assert "holds samples with seed 0, not 1" in said.stderr


@pytest.mark.slow
def test_a_failure_in_one_process_ends_all(model, tmp_path):
    script = tmp_path / "failing.py"
    script.write_text(
        "import os, sys, time\n"
        "from randfeat import cli, Pipeline\n"
        "def sample(self, *_, **__):\n"
        "    if os.environ['RANK'] == '1': raise ValueError('the second cannot')\n"
        "    time.sleep(60)\n"
        "Pipeline.sample = sample\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    began = time.monotonic()
    command = [*TORCHRUN, str(script), "sample", str(model), "--out", str(tmp_path / "out"), "--device", "cpu"]
    said = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert said.returncode
    # once, be it after a progress bar that the first process had begun
    assert [text.split("randfeat sample: ")[1] for text in said.stderr.splitlines() if "randfeat sample: " in text] == [
        "the second cannot"
    ]
    assert time.monotonic() - began < 50
