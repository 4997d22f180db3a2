"""`randfeat index` and `randfeat search`: the whole of it from the command line, on a folder that changes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import damaged
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from pipelines import make_sampler

from randfeat import Index, cli
from randfeat.commands import search
from randfeat.index import benchmark, faiss_index
from randfeat.index.query import Match

SPEC = "random*2/causal/query/L1/grid2/concat"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tiny"
    make_sampler().save(path)
    return path


@pytest.fixture
def photos(tmp_path, monkeypatch):
    for number in range(40):
        path = tmp_path / "photos" / ("cat", "dog")[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(damaged.noise(8, 8, seed=number)).save(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"


def run(capsys, *arguments, code=0):
    capsys.readouterr()
    assert cli.main([str(argument) for argument in arguments]) == code, capsys.readouterr().err
    said = capsys.readouterr()
    return said.out if code in (0, 3) else said.err


READING = ["--device", "cpu", "--workers", "0"]


@pytest.fixture
def built(capsys, model, photos):
    run(capsys, "index", "build", "i", "photos", "--model", model, "--spec", SPEC, *READING)
    return photos.parent / "i"


def test_from_a_folder_to_similar_images(capsys, model, photos):
    said = run(capsys, "index", "build", "i", "photos", "--model", model, "--spec", SPEC, *READING)
    assert said == "40 images -> i: flat (40 x 128 numbers are 2e-05 GB: looking at all is quick)\n"
    found = json.loads(
        run(capsys, "search", "i", "photos/cat/04.png", "photos/dog/07.png", "-k", 3, "--format", "json")
    )
    assert [len(one) for one in found] == [3, 3]
    assert all(list(match) == ["path", "label", "score", "id"] for one in found for match in one)
    assert found[0][0] == {"path": str(photos / "cat/04.png"), "label": "cat", "score": pytest.approx(1), "id": 2}
    few = json.loads(
        run(capsys, "search", "i", "photos/dog", "--label", "cat", "--path", "*/0?.png", "--format", "json")
    )
    assert len(few) == 20
    assert {match["path"] for match in few[0]} == {str(photos / f"cat/0{number}.png") for number in range(0, 10, 2)}
    table = run(capsys, "search", "i", "photos/cat/04.png", "-k", 2).splitlines()
    assert table[0] == "photos/cat/04.png"
    assert table[1].split() == ["1.0000", "cat", str(photos / "cat/04.png")]
    assert len(table) == 3
    nothing = run(capsys, "search", "i", "photos/cat/04.png", "--path", "fox/*")
    assert nothing == "photos/cat/04.png\n  nothing\n"
    unknown = run(capsys, "search", "i", "photos/cat/04.png", "--label", "fox", code=1)
    assert unknown == "randfeat search: i has no row of the label fox: it has cat, dog\n"
    none = run(capsys, "search", "i", "photos/cat/04.png", "-k", "0", code=1)
    assert none == "randfeat search: k must be a whole number from 1, got 0\n"


def test_a_page_that_is_whole_in_itself(capsys, built, photos):
    (photos / "cat/00.png").unlink()
    run(capsys, "search", "i", "photos/cat/04.png", "-k", 40, "--format", "html", "-o", "page.html")
    page = (photos.parent / "page.html").read_text()
    assert page.count("data:image/png;base64,") == 40  # 39 that are there, and the query
    assert page.count("no picture there") == 1
    assert "://" not in page  # base64 may spell http
    assert f"{photos}/cat/04.png" in page
    assert SPEC in page
    shutil.move(photos / "dog/01.png", photos / "dog/<b>&.png")
    run(capsys, "index", "sync", "i", "photos", *READING)
    page = run(capsys, "search", "i", "photos/cat/04.png", "-k", 40, "--format", "html")
    assert "&lt;b&gt;&amp;.png" in page
    assert "<b>&" not in page


def test_a_whitened_index(capsys, model, photos):
    run(capsys, "index", "build", "i", "photos", "--model", model, "--spec", SPEC, "--whiten", 5, *READING)
    assert Index.open("i").dim == 5
    assert "cosine of 5 numbers, whitened from 128" in run(capsys, "index", "stats", "i")
    found = run(capsys, "search", "i", photos / "cat" / "04.png", "-k", "1")
    assert "04.png" in found
    run(capsys, "index", "build", "j", "photos", "--model", model, "--spec", SPEC, "--whiten", 256, *READING)
    assert Index.open("j").dim == 39  # of 40 images
    said = run(capsys, "index", "build", "k", "photos", "--model", model, "--whiten", 0, *READING, code=1)
    assert "keeps a whole number of components from 1, got 0" in said


def test_sync_add_and_remove(capsys, built, photos):
    (photos / "cat/00.png").unlink()
    Image.fromarray(damaged.noise(8, 8, seed=50)).save(photos / "cat/02.png")
    os.utime(photos / "cat/02.png", ns=(5, 5))
    Image.fromarray(damaged.noise(8, 8, seed=51)).save(photos / "cat/new.png")
    (photos / "dog/bad.png").write_bytes(b"")
    dry = run(capsys, "index", "sync", "i", "photos", "--dry-run")
    signs = ["+ cat/new.png", "+ dog/bad.png", "~ cat/02.png", "- cat/00.png"]
    assert dry.splitlines() == [line.replace(" ", f" {photos}/") for line in signs]
    assert len(Index.open(built)) == 40
    said = run(capsys, "index", "sync", "i", "photos", *READING, code=3)
    assert said.splitlines() == [
        "1 added, 1 read again, 1 removed, 38 unchanged; 40 images in i",
        "1 skipped, since they cannot be read: 1 an empty file",
        f"  {photos}/dog/bad.png: an empty file",
    ]
    again = run(capsys, "index", "sync", "i", "photos", *READING, code=3).splitlines()
    assert again == ["40 unchanged; 40 images in i", *said.splitlines()[1:]]
    assert run(capsys, "index", "sync", "i", "photos", "--dry-run") == "nothing to do\n"
    shutil.copytree(photos / "dog", photos.parent / "more")
    (photos.parent / "more" / "bad.png").unlink()
    assert run(capsys, "index", "add", "i", "more", *READING) == "20 copies of known ones; 60 images in i\n"
    assert run(capsys, "index", "remove", "i", "more/01.png", "photos/cat") == "21 removed; 39 images in i\n"
    assert run(capsys, "index", "remove", "i", "dog/1?.png") == "5 removed; 34 images in i\n"
    refused = run(capsys, "index", "remove", "i", "more/03.png", "nothing", code=1)
    assert refused == "randfeat index: i holds nothing called nothing: give an image, a folder or a pattern\n"
    assert len(Index.open(built)) == 34


def test_what_was_moved_is_not_read_again(capsys, built, photos):
    (photos / "cat/04.png").rename(photos / "dog/moved.png")
    shutil.copy(photos / "cat/06.png", photos / "cat/copy.png")
    dry = run(capsys, "index", "sync", "i", "photos", "--dry-run").splitlines()
    assert dry == [f"> {photos}/cat/04.png -> {photos}/dog/moved.png", f"* {photos}/cat/copy.png"]
    said = run(capsys, "index", "sync", "i", "photos", "--model", "nowhere")  # which is not needed
    assert said == "1 renamed or moved, 1 copies of known ones, 39 unchanged; 41 images in i\n"
    found = json.loads(run(capsys, "search", "i", "photos/dog/moved.png", "-k", 1, "--format", "json"))
    assert found[0][0] == {"path": f"{photos}/dog/moved.png", "label": "dog", "score": pytest.approx(1), "id": 2}


def test_compact_stats_and_verify(capsys, built, photos, monkeypatch):
    run(capsys, "index", "remove", "i", "photos/dog")
    stats = run(capsys, "index", "stats", "i")
    assert "images   20\nremoved  20, whose room `randfeat index compact` gives back\n" in stats
    assert f"spec     {SPEC}\n" in stats
    assert "part 1   flat, 40 rows, 20 of them removed\n" in stats
    assert json.loads(run(capsys, "index", "stats", "i", "--format", "json"))["rows"] == 20
    monkeypatch.setattr(faiss_index, "QUICK", 100)
    monkeypatch.setattr(faiss_index, "PER_LIST", 4)
    said = run(capsys, "index", "compact", "i").splitlines()
    assert said[0].startswith(
        "20 images in i: ivf (20 x 128 numbers are 1e-05 GB: 5 lists, of which a query looks at a"
    )
    assert said[1].endswith(" MB now")
    assert run(capsys, "index", "compact", "i") == "i is compact already\n"
    assert run(capsys, "index", "verify", "i") == "i is whole: 20 images\n"
    assert "part 1   ivf, 20 rows, nprobe " in run(capsys, "index", "stats", "i")
    file = next(built.glob("*.faiss"))
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert "is missing or not what was written" in run(capsys, "index", "verify", "i", code=1)


def test_a_store_a_network_of_timm_and_damaged_images(capsys, model, photos):
    for number in range(12):
        damaged.write_damaged(photos / "cat" / f"bad{number}", damaged.DAMAGES[number % 10])
    torch.save(timm.create_model("test_vit", num_classes=5).state_dict(), photos.parent / "vit.pth")
    name = f"timm:test_vit@{photos.parent / 'vit.pth'}"
    said = run(capsys, "index", "build", "t", "photos", "--model", name, *READING, code=3).splitlines()
    assert said[0].startswith("40 images -> t: flat")
    assert said[1].startswith("12 skipped, since they cannot be read: ")
    assert said[-1] == "  and 2 more, in the .csv file of the index"
    found = json.loads(run(capsys, "search", "t", "photos/dog/01.png", "-k", 1, "--format", "json", "--device", "cpu"))
    assert found[0][0]["path"] == str(photos / "dog/01.png")
    run(capsys, "extract", model, "photos", "-o", "store", "--spec", SPEC, *READING, code=3)
    said = run(capsys, "index", "build", "s", "store", "--type", "hnsw", code=3)
    assert said.startswith("40 images -> s: hnsw (40 x 128 ")
    assert "12 skipped, since they cannot be read: " in said
    again = run(capsys, "index", "sync", "s", "photos", code=3)
    assert again.splitlines() == ["40 unchanged; 40 images in s", *said.splitlines()[1:]]
    refused = run(capsys, "index", "build", "u", "store", "--model", model, code=1)
    assert "is a store of features that a model has read: leave --model out" in refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("index build new photos", "no model is named to read the images of photos: give --model"),
        ("index build i photos --model {model}", "i is an index already: add to it, or choose another directory"),
        ("index build photos photos --model {model}", "photos holds something else: choose another directory"),
        ("index build new photos --model {model} --spec nonsense", "nonsense"),
        ("index build new no/where/there --model {model}", "there is no no/where/there"),
        ("index build new photos --model {model} --memory 0", "--memory must be more than 0, got 0"),
        ("index stats photos", "photos is no index: it has no meta.json"),
        ("index add nowhere photos", "nowhere is no index"),
        ("index sync i photos/cat/00.png", "is no data set"),
        ("search i nowhere.png", "there is no nowhere.png"),
        ("search nowhere photos", "nowhere is no index"),
        ("search i photos/cat/00.png -k 0", "k must be a whole number from 1, got 0"),
        ("search i photos/cat/00.png -o i/meta.json", "i/meta.json lies in the index: choose another file"),
        ("search i photos/cat/00.png -o photos", "photos is a folder: name a file in it"),
        ("search i bad.png", "none of the 1 images could be read (1 text, no picture): bad.png"),
        ("search i photos/cat/00.png --model {other}", "another: it was weights"),
        ("index bench -o out", "bench measures on one set of rows: give either INDEX or --synthetic"),
        ("index bench i --synthetic -o out", "bench measures on one set of rows: give either INDEX or --synthetic"),
        ("index bench --synthetic --rows 0 -o out", "rows must be a whole number from 1, got 0"),
    ],
)
def test_what_is_wrong_is_one_sentence(capsys, model, built, photos, arguments, message):
    make_sampler(seed=5).save(photos.parent / "other")
    (photos.parent / "bad.png").write_text("a note that somebody renamed")
    words = arguments.format(model=model, other=photos.parent / "other").split()
    before = (built / "meta.json").read_bytes()
    said = run(capsys, *words, code=1)
    assert message in said
    assert len(said.splitlines()) == 1
    assert (built / "meta.json").read_bytes() == before
    assert not (photos.parent / "new").exists()


def test_a_second_writer_is_told(capsys, built, photos, monkeypatch):
    monkeypatch.setattr("randfeat.utils.resume.LOCK_TIMEOUT", 0.1)
    with Index.open(built)._writing():
        said = run(capsys, "index", "remove", "i", "photos/cat", code=1)
    assert said == "randfeat index: another process is writing i: wait until it has ended\n"


def test_what_is_stopped_says_how_to_go_on(capsys, model, photos, monkeypatch):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("randfeat.index.staging.ImageReader._write", stop)
        command = ["index", "build", "i", "photos", "--model", model, "--spec", SPEC, *READING]
        said = run(capsys, *command, code=130)
    assert "randfeat index: stopped. The index is as it was. Run the same command again: images that are" in said
    assert run(capsys, *command).startswith("40 images -> i")


SLOW = """
import signal, sys, time
from randfeat import cli
from randfeat.features import extract, generator_encoder
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs ignore
extract.SHARD, encode = 4, generator_encoder.GeneratorEncoder.encode
generator_encoder.GeneratorEncoder.encode = lambda *batch: time.sleep(0.05) or encode(*batch)
sys.exit(cli.main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_ends_a_building_that_goes_on(capsys, model, photos, sent):
    (photos.parent / "slow.py").write_text(SLOW)
    command = ["index", "build", "i", "photos", "--model", model, "--spec", SPEC, "--device", "cpu", "--workers", "1"]
    how = [sys.executable, "slow.py", *map(str, command), "--batch-size", "4"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    running = subprocess.Popen(how, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while len(list(photos.parent.glob("i/unfinished/*.parquet"))) < 3:
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(running.pid, sent)
    _, said = running.communicate(timeout=30)
    assert running.returncode == (-9 if sent == signal.SIGKILL else 130)
    assert "Traceback" not in said
    assert "its building is unfinished" in run(capsys, "search", "i", "photos", code=1)
    done = sum(1 for _ in photos.parent.glob("i/unfinished/*.parquet"))
    ended = subprocess.run(how, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert f"images ({4 * done} were there)" in ended.stderr
    assert len(Index.open("i")) == 40


@pytest.mark.slow
def test_bench(capsys, built, photos, monkeypatch):
    said = run(
        capsys, "index", "bench", "--synthetic", "--rows", 3000, "--dim", 16, "--clusters", 20, "-o", "b"
    ).splitlines()
    assert [line.split()[:2] for line in said[:4]] == [
        ["flat", "Flat"],
        ["ivf", "IVF46,Flat"],
        ["codes", "IVF46,Flat"],  # of so few there is nothing to learn
        ["hnsw", "HNSW32,Flat"],
    ]
    with Image.open("b/bench.png") as picture:
        assert picture.width > 500
    records = json.loads((photos.parent / "b" / "bench.json").read_text())["kinds"]
    assert [record["rows"] for record in records] == [3000] * 4
    for record in records:
        at_default = next(point for point in record["points"] if point["value"] == record["default"])
        assert at_default["recall"] > (0.9999 if record["variant"] == "flat" else 0.94)
        assert at_default["queries_per_second"] > 10
        assert 0 < record["open_seconds"] < 1
        assert record["build_memory"] > record["build_memory_before"] > 1e7
    values = [point["value"] for point in records[1]["points"]]
    recalls = [point["recall"] for point in records[1]["points"]]
    assert values == sorted(values)
    assert recalls == sorted(recalls)
    assert run(capsys, "index", "bench", "i", "-o", "c", "--types", "flat", "--queries", 9).startswith("flat   Flat ")
    assert json.loads((photos.parent / "c" / "bench.json").read_text())["kinds"][0]["rows"] == 36
    assert sorted(path.name for path in (photos.parent / "c").iterdir()) == ["bench.json", "bench.png"]


def test_a_name_of_two_lines_is_one_line_of_the_table():
    match = Match(0, "cats/a\nb.png", "c\tt", 1.0)
    assert search.table(Index(np.eye(2), range(2)), [search.Query("q\n.png")], [[match]]) == (
        "q\\n.png\n   1.0000  c\\tt  cats/a\\nb.png"
    )


def test_the_truth_of_the_bench_is_exact(tmp_path):
    import numpy as np

    queries = benchmark.synthetic(tmp_path / "rows.npy", 500, 8, 5, 20)
    rows = np.load(tmp_path / "rows.npy")
    assert rows.shape == (500, 8)
    unit = [array / np.linalg.norm(array, axis=1, keepdims=True) for array in (queries, rows)]
    cosine = -np.sort(-(unit[0] @ unit[1].T), axis=1)[:, :10]
    np.testing.assert_allclose(benchmark.exact(tmp_path / "rows.npy", queries, 10, "cosine"), cosine, atol=1e-5)
    distance = np.sort(np.linalg.norm(queries[:, None] - rows, axis=2), axis=1)[:, :10]
    np.testing.assert_allclose(benchmark.exact(tmp_path / "rows.npy", queries, 10, "l2"), distance, atol=1e-3)
    again = benchmark.synthetic(tmp_path / "again.npy", 500, 8, 5, 20)
    assert (again == queries).all()


def test_queries_that_cannot_be_read_are_skipped_and_listed(capsys, built, photos):
    (photos / "bad.png").write_text("a note that somebody renamed")
    try:
        assert cli.main(["search", "i", "photos/bad.png", "photos/cat/00.png", "--format", "json"]) == 3
    finally:
        (photos / "bad.png").unlink()
    said = capsys.readouterr()
    (matches,) = json.loads(said.out)
    assert matches[0]["path"].endswith("photos/cat/00.png")
    assert "1 skipped, since they cannot be read: 1 text, no picture\n  photos/bad.png: text, no picture\n" in said.err
