"""`randfeat extract`: the whole of it from the command line, alone, killed, and side by side."""

from __future__ import annotations

import csv
import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path

import damaged
import numpy as np
import pytest
import torch
from folders import contents
from PIL import Image
from pipelines import make_sampler

import randfeat
from randfeat import cli, weights
from randfeat.data.token_store import TokenWriter
from randfeat.features.opening import open_encoder
from randfeat.features.store import FeatureStore

HERE = Path(__file__).parents[1] / "helpers"
SPECS = ["raster/causal/token/L2/mean/mean", "random*2/causal/query/L1/grid2/concat"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tiny"
    make_sampler().save(path)
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """150 pictures in two classes, every tenth of them damaged."""
    root = tmp_path_factory.mktemp("data") / "photos"
    for number in range(150):
        path = root / ("cat", "dog")[number % 2] / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(damaged.noise(8, 8, seed=number)).save(path)
        if number % 10 == 3:
            path.write_bytes(path.read_bytes()[:60])
    return root


def command(model, data, out, *more):
    return ["extract", str(model), str(data), "-o", str(out), "--device", "cpu", *more]


# what it does -----------------------------------------------------------------------------------------------


def test_two_thousand_images_of_mixed_quality(model, tmp_path, capsys):
    """1,900 of all kinds that there are, and 100 that are damaged in ten ways, each in its place."""
    ways, wrong, right = damaged.DAMAGES[:10], {}, []
    for number in range(2000):
        stem = tmp_path / "data" / f"part{number // 300}" / f"{number:04}"
        stem.parent.mkdir(parents=True, exist_ok=True)
        if number % 20 == 7:
            path = damaged.write_damaged(stem, ways[number // 20 % 10])
            wrong[path.relative_to(tmp_path / "data").as_posix()] = ways[number // 20 % 10]
        else:
            right.append(damaged.write_good(stem, number).relative_to(tmp_path / "data").as_posix())
    out = tmp_path / "out"
    assert (len(right), len(wrong), Counter(wrong.values())) == (1900, 100, Counter(dict.fromkeys(ways, 10)))
    assert cli.main(command(model, tmp_path / "data", out, "--spec", *SPECS, "--workers", "2")) == 3
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[0] == f"1,900 images -> {out}"
    assert lines[1:3] == [f"  {SPECS[0]}: features (1900, 16)", f"  {SPECS[1]}: features (1900, 128)"]
    assert lines[3].startswith(f"100 skipped, listed in {out / 'skipped.csv'}: ")
    assert sum(int(word) for word in lines[3].split("csv: ")[1].split() if word.isdecimal()) == 100
    assert "2000/2000" in said.err
    store = FeatureStore.open(out)
    store.verify()
    assert sorted(store.paths) == sorted(right)
    with (out / "skipped.csv").open(newline="") as file:
        listed = list(csv.DictReader(file))
    assert {row["path"] for row in listed} == wrong.keys()
    for row in listed:
        assert damaged.REASONS[wrong[row["path"]]] in row["reason"]
    for spec in SPECS:  # row i is image i, by another road
        some = range(0, 1900, 171)
        expected = randfeat.load(model).features([tmp_path / "data" / store.paths[row] for row in some], spec)
        np.testing.assert_allclose(store.as_numpy(spec)[some], expected, atol=1e-5)


def test_without_damage_it_ends_well_and_again_says_so(model, photos, tmp_path, capsys):
    for path in photos.rglob("*.png"):
        if path.stat().st_size > 60:
            (tmp_path / "good" / path.parent.name).mkdir(parents=True, exist_ok=True)
            (tmp_path / "good" / path.parent.name / path.name).write_bytes(path.read_bytes())
    how = command(model, tmp_path / "good", tmp_path / "out", "--workers", "0", "--dtype", "bfloat16")
    assert cli.main(how) == 0
    assert capsys.readouterr().out.startswith(f"135 images -> {tmp_path / 'out'}\n  raster/full/query/L2/mean/mean: ")
    assert FeatureStore.open(tmp_path / "out").classes == ["cat", "dog"]
    before = contents(tmp_path / "out")
    assert cli.main(how) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out'} was complete already\n"
    assert cli.main(how[:-2]) == 1  # in float32
    assert "encoder.dtype bfloat16, not float32" in capsys.readouterr().err
    assert contents(tmp_path / "out") == before


def test_a_split_and_labels_of_ones_own(model, photos, tmp_path):
    for split in ("train", "val"):
        (tmp_path / "data" / split).mkdir(parents=True)
        for number in range(3):
            Image.fromarray(damaged.noise(8, 8, seed=number)).save(tmp_path / "data" / split / f"{number}.png")
    (tmp_path / "labels.csv").write_text("path,label\n0.png,fox\n1.png,hen\n2.png,fox\n")
    more = ["--split", "val", "--labels", str(tmp_path / "labels.csv")]
    assert cli.main(command(model, tmp_path / "data", tmp_path / "out", *more)) == 0
    store = FeatureStore.open(tmp_path / "out")
    assert (store.classes, store.labels.tolist(), len(store)) == (["fox", "hen"], [0, 1, 0], 3)


def tokens_of(model, photos, directory, crops=2, **other):
    """A token store of the pictures that can be read; only its first crops are right."""
    pipeline = randfeat.load(model)
    paths = [path for path in sorted(photos.rglob("*.png")) if path.stat().st_size > 60][:20]
    tokens = pipeline.encode(paths).numpy()
    grid, vocab_size = pipeline.generator.grid, pipeline.generator.vocab_size
    own = dict(tokenizer=weights.fingerprint(pipeline.tokenizer), grid=grid, vocab_size=vocab_size, crops=crops)
    writer = TokenWriter(directory, [path.name for path in paths], None, **own | other)
    writer.write(0, np.stack([tokens, *[0 * tokens] * (crops - 1)], 1), np.full((20, 2), 8))
    writer.finish()
    return paths


def test_labels_that_are_called_otherwise_are_not_dropped_without_a_word(model, photos, tmp_path, capsys):
    (photos / "list.csv").write_text("path,breed\ncat/000.png,pug\ndog/001.png,akita\n")
    assert cli.main(command(model, photos / "list.csv", tmp_path / "a", "--workers", "0")) == 0
    said = capsys.readouterr().err
    assert "note: " in said
    assert "list.csv gives no labels: its columns are path, breed, expected one called label, " in said
    more = ["--workers", "0", "--label-column", "breed"]
    assert cli.main(command(model, photos / "list.csv", tmp_path / "b", *more)) == 0
    store = FeatureStore.open(tmp_path / "b")
    assert (store.classes, store.labels.tolist()) == (["akita", "pug"], [1, 0])
    assert "note: " not in capsys.readouterr().err
    (photos / "list.csv").unlink()


def test_an_image_beside_class_folders_is_named(model, photos, tmp_path, capsys):
    (photos / "loose.png").write_bytes((photos / "cat" / "000.png").read_bytes())
    assert cli.main(command(model, photos, tmp_path / "out", "--workers", "0")) == 3
    said = capsys.readouterr().err
    assert f"note: 1 of 151 images of {photos} lie beside its folders, such as loose.png, so the folders are no" in said
    assert FeatureStore.open(tmp_path / "out").labels is None
    (photos / "loose.png").unlink()


def test_tokens_are_read_as_their_pictures_are(model, photos, tmp_path, capsys):
    paths = tokens_of(model, photos, tmp_path / "tokens")
    assert cli.main(command(model, tmp_path / "tokens", tmp_path / "out", "--spec", *SPECS, "--batch-size", "7")) == 0
    store = FeatureStore.open(tmp_path / "out")
    assert store.paths == [path.name for path in paths]
    for spec in SPECS:
        np.testing.assert_allclose(store.as_numpy(spec), randfeat.load(model).features(paths, spec), atol=1e-5)
    capsys.readouterr()
    tokens_of(model, photos, tmp_path / "others", tokenizer="f" * 64)
    assert cli.main(command(model, tmp_path / "others", tmp_path / "none")) == 1
    said = capsys.readouterr().err
    own = weights.fingerprint(randfeat.load(model).tokenizer)
    assert f"holds tokens of the tokenizer {'f' * 64}, and {model} reads those of {own}" in said
    tokens_of(model, photos, tmp_path / "turned", grid=(3, 2))
    assert cli.main(command(model, tmp_path / "turned", tmp_path / "none")) == 1
    assert "holds 3 x 2 tokens an image, and" in capsys.readouterr().err
    assert cli.main(command(model, tmp_path / "tokens", tmp_path / "none", "--spec", f"{SPECS[0]}/shifts2")) == 1
    assert "tokens do not move: leave the shifts out of" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_a_network_of_timm(model, photos, tmp_path, capsys):
    """Prepared in workers as its authors do, in whatever batches."""
    import timm

    torch.save(timm.create_model("test_vit", num_classes=5).state_dict(), tmp_path / "vit.pth")
    name = f"timm:test_vit@{tmp_path / 'vit.pth'}"
    how = command(name, photos, tmp_path / "out", "--workers", "1", "--spec", "pooled", "L-1/none")
    assert cli.main(how) == 3
    store = FeatureStore.open(tmp_path / "out")
    encoder = open_encoder(name, ["pooled", "L-1/none"])
    assert store.specs == [*encoder.specs]
    with Image.open(photos / store.paths[77]) as picture:
        expected = encoder.encode(torch.from_numpy(encoder.prepare(picture))[None])
    for spec, one in zip(store.specs, expected, strict=True):
        np.testing.assert_allclose(store.as_numpy(spec)[77:78], one, atol=1e-4)
    tokens_of(model, photos, tmp_path / "tokens")
    assert cli.main(command(name, tmp_path / "tokens", tmp_path / "none")) == 1
    assert f"holds tokens, which {name} cannot read: give it the images" in capsys.readouterr().err


# what it refuses --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("{model} {missing} --spec raster/causal", "feature spec 'raster/causal' has 2 parts"),
        ("{model} {missing} --spec raster/causal/token/L9/mean/mean", "layers are numbered 1 to 2"),
        ("{model} {missing} --spec raster/causal/token/L1/grid3/mean", "more cells than the 2 x 3 grid"),
        ("{missing} {missing}", "missing"),
        ("{model} {missing}", "there is no {missing}"),
        ("{model} {photos} --batch-size 0", "batch_size must be a whole number from 1, got 0"),
        ("{model} {photos} --workers -1", "workers must be a whole number from 0, got -1"),
        ("{model} {photos} --device mps", "there is no device 'mps' here"),
        ("{model} {photos} --labels {missing}", "missing"),
        ("{model} {model}", "holds no images"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(model, photos, tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    names = {"model": model, "photos": photos, "missing": tmp_path / "missing"}
    assert cli.main(["extract", "-o", str(tmp_path / "out"), *arguments.format(**names).split()]) == 1
    said = capsys.readouterr().err
    assert message.format(**names) in said
    assert len(said.splitlines()) == 1 + ("reading on" in said)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "stopped. Run the same command again: what is done is kept."),
        (torch.OutOfMemoryError(), 1, "no room for 64 images at a time on cpu: choose a smaller --batch-size"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "no room left for {out}: make some, and run the same"),
        (OSError(errno.EIO, "Input/output error"), 1, "Input/output error"),
    ],
)
def test_what_stops_it_is_one_sentence(model, photos, tmp_path, capsys, monkeypatch, error, code, message):
    how, made = command(model, photos, tmp_path / "out", "--workers", "0"), []

    def fail(self, shard, *content):
        made.append(shard)
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("randfeat.features.extract.Shards.write", fail)
        assert cli.main(how) == code
    said = capsys.readouterr().err
    assert message.format(out=tmp_path / "out") in said
    assert made == [0]
    assert cli.main(how) == 3


# killed, and side by side -----------------------------------------------------------------------------------

KILLED = """
    import os, random, shutil, sys, threading
    sys.path.insert(0, {tests!r})
    from pathlib import Path
    import kills
    import torch
    from tqdm import tqdm
    from randfeat import cli
    from randfeat.features import extract

    tqdm.set_lock(threading.RLock())  # processes would share its own, and wait for one that was killed with it
    torch.set_num_threads(1)
    extract.SHARD = 5

    def ends(out, number=0, torn=False):
        # a child that extracts, and may die at a touch of a file of the store: its end, and how often it touched one
        heard, told = os.pipe()
        child = os.fork()
        if not child:
            os.close(heard)
            kills.die_at(out, number, torn, lambda: os.write(told, b"."))
            os._exit(cli.main([*{command!r}, "-o", str(out)]))
        os.close(told)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with os.fdopen(heard, "rb") as touches:  # its worker may live a little longer
            return status, len(touches.read())

    root = Path({root!r})
    assert cli.main([*{command!r}, "--workers", "0", "-o", str(root / "undisturbed")]) == 3
    status, touches = ends(root / "counted")
    assert status == 3
    draw, deaths = random.Random(0), 0
    while deaths < 10:
        torn = bool(deaths % 2)
        status, _ = ends(root / "killed", draw.randint(1, touches), torn)
        if status != 3 and kills.was_killed(status, torn):
            deaths += 1
            folder = root / "killed" / "unfinished"
            print("shards", len(os.listdir(folder)) if folder.is_dir() else 0)
        else:  # it was done: from the beginning
            shutil.rmtree(root / "killed")
    sys.exit(ends(root / "killed")[0])
"""


@pytest.mark.slow
def test_ten_kills_at_any_touch_of_a_file(model, photos, tmp_path):
    how = [
        "extract",
        str(model),
        str(photos),
        "--device",
        "cpu",
        "--workers",
        "1",
        "--batch-size",
        "5",
        "--spec",
        *SPECS,
    ]
    code = textwrap.dedent(KILLED).format(tests=str(HERE), command=how, root=str(tmp_path))
    environment = ENVIRONMENT | {"PYTHONWARNINGS": "ignore::DeprecationWarning"}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert said.returncode == 3, said.stderr
    assert said.stdout.count("shards") == 10
    assert len(set(said.stdout.split())) > 3  # they came at different moments
    assert contents(tmp_path / "killed") == contents(tmp_path / "undisturbed")
    assert len(FeatureStore.open(tmp_path / "killed")) == 135


@pytest.mark.slow
def test_two_processes_read_what_one_reads(model, photos, tmp_path):
    script = tmp_path / "small.py"  # as the command, with small shards
    script.write_text(
        "import sys\nfrom randfeat import cli\nfrom randfeat.features import extract\n"
        "extract.SHARD = 20\nsys.exit(cli.main())\n"
    )
    how = [
        str(script),
        *command(model, photos, tmp_path / "two", "--batch-size", "8", "--workers", "1", "--spec", *SPECS),
    ]
    said = subprocess.run([*TORCHRUN, *how], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert said.stdout.count("135 images -> ") == 1
    assert said.stdout.count("15 skipped") == 1
    one = command(model, photos, tmp_path / "one", "--batch-size", "8", "--workers", "0", "--spec", *SPECS)
    assert cli.main(one) == 3
    first, second = FeatureStore.open(tmp_path / "one"), FeatureStore.open(tmp_path / "two")
    assert first.table == second.table
    assert first.skipped == second.skipped
    for spec in SPECS:
        np.testing.assert_allclose(first.as_numpy(spec), second.as_numpy(spec), atol=1e-5)
    wrong = subprocess.run([*TORCHRUN, *how, "--dtype", "bfloat16"], env=ENVIRONMENT, capture_output=True, text=True)
    assert wrong.returncode
    assert wrong.stderr.count("randfeat extract: ") == 1  # what one refuses, all refuse, and one says so
    assert "encoder.dtype float32, not bfloat16" in wrong.stderr


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(model, photos, tmp_path, sent):
    script = tmp_path / "slow.py"  # as the command, with small shards of a slow encoder
    script.write_text(
        "import sys, time\n"
        "from randfeat import cli\n"
        "from randfeat.features import extract, generator_encoder\n"
        "extract.SHARD, encode = 4, generator_encoder.GeneratorEncoder.encode\n"
        "generator_encoder.GeneratorEncoder.encode = lambda *batch: time.sleep(0.05) or encode(*batch)\n"
        "sys.exit(cli.main())\n"
    )
    how = [sys.executable, str(script), *command(model, photos, tmp_path / "out", "--workers", "2")]
    running = subprocess.Popen(how, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "out").glob("unfinished/0*"))) < 3:
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(running.pid, sent)  # as a terminal and a scheduler do: to all of its processes
    _, said = running.communicate(timeout=30)
    assert running.returncode == 130
    assert "randfeat extract: stopped. Run the same command again: what is done is kept." in said
    assert "Traceback" not in said
    assert cli.main(command(model, photos, tmp_path / "out", "--workers", "0")) == 3
