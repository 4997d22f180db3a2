"""The demo that shows the models of the package: from end to end with few images, and its parts by hand."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import serial
from PIL import Image

from randfeat import Index, cli
from randfeat.commands import demo
from randfeat.commands.demo import pictures, shipped, shipped_jobs, shipped_page
from randfeat.commands.demo.features import Score
from randfeat.data.sources import open_source

FULL = {"linear": {"best": {"top1": {"value": 0.9251, "low": 0.92, "high": 0.93, "n": 10000}}}}


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """The folder that the demo leaves with few images."""
    out = tmp_path_factory.mktemp("shown") / "demo"
    Index(np.eye(2, dtype=np.float32), ["a", "b"]).save(out / "index")  # of an earlier run, which is replaced
    effort = shipped_jobs.Effort(300, 120, 4, (1, 2), samples_each=4, specs=shipped_jobs.SPECS[:2])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shipped, "run_all", serial.run_all)
        patch.setattr(shipped, "measured_on_all", lambda: FULL)
        patch.setattr(shipped, "Effort", lambda: effort)
        assert cli.main(["demo", "-o", str(out)]) == 0
    return out


@pytest.mark.slow
class TestShown:
    def test_the_record_has_every_number_with_its_interval(self, shown):
        record = json.loads((shown / "report.json").read_text())
        wanted = [f"likelihood.{model}.{k}.top1" for model in ("randar", "arpg") for k in ("k1", "k2")]
        wanted += [
            f"{measure}.{source}.top1"
            for measure in ("linear", "knn", "fewshot5")
            for source in ("best", "hog", "pixels", "pca", "random_weights")
        ]
        wanted += [f"samples.{what}" for what in ("agreement", "recall", "nearest_train_ratio")] + ["judge.top1"]
        for path in wanted:
            node = record
            for key in path.split("."):
                node = node[key]
            assert set(node) == {"value", "low", "high", "n"}, path
            assert node["low"] <= node["value"] <= node["high"], path
        assert record["linear"]["pixels"]["top1"]["n"] == 120
        assert record["linear"]["pixels"]["top1"]["value"] > 0.6  # the images and labels are those of the set
        assert record["likelihood"]["arpg"]["k1"]["top1"]["n"] == 4
        assert record["seconds"] > 0

    def test_the_page_is_self_contained(self, shown):
        page = (shown / "report.html").read_text()
        sources = re.findall(r'(?:src|href)="([^"]{0,30})', page)
        assert len(sources) >= 7
        assert all(source.startswith("data:image/") for source in sources)
        assert "://" not in page  # base64 may spell http

    def test_the_page_has_what_was_measured_on_all_images_and_its_command(self, shown):
        page = (shown / "report.html").read_text()
        assert "92.5 [92.0, 93.0]" in page
        assert "python -m studies.fashion" in page

    def test_the_images_are_left_as_files_and_the_index_is_searched(self, shown, capsys):
        source = open_source(shown / "fashion", "test")
        assert (len(source), len(set(source.labels))) == (2000, 10)
        query = shown / "fashion" / "images" / "0000.png"
        assert cli.main(["search", str(shown / "index"), str(query), "-k", "1", "--format", "json"]) == 0
        ((nearest,),) = json.loads(capsys.readouterr().out)
        assert (nearest["path"], nearest["label"]) == (str(query.resolve()), "Ankle boot")

    def test_the_commands_of_the_page_are_accepted(self, shown, capsys):
        page = (shown / "report.html").read_text()
        lines = re.search(r"<pre><code>(.*?)</code>", page, re.DOTALL)[1].replace("&#34;", '"').splitlines()
        assert len(lines) == 6
        import blocks

        for line in lines:
            for words in blocks.commands(line):
                blocks.check(words)


def test_a_folder_of_the_other_demo_is_left_alone(tmp_path, capsys):
    for folder, arguments in (("digits", []), ("fashion", ["--train"])):
        out = tmp_path / folder
        (out / folder).mkdir(parents=True)
        assert cli.main(["demo", *arguments, "-o", str(out)]) == 1
        message = capsys.readouterr().err
        assert f"{out} holds what" in message
        assert len(message.splitlines()) == 1
        assert [path.name for path in out.iterdir()] == [folder]


def test_a_length_of_training_needs_training(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["demo", "--fast"])
    assert stop.value.code == 2
    assert "add --train" in capsys.readouterr().err


def test_each_demo_has_a_folder_of_its_own_by_default(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "show", lambda out: out / "report.html")
    monkeypatch.setattr(demo, "train", lambda out, preset: out / preset)
    assert cli.main(["demo"]) == cli.main(["demo", "--train", "--full"]) == 0
    assert "wrote demo/report.html" in (printed := capsys.readouterr().out)
    assert "wrote digits_demo/full" in printed


def test_the_better_generator_is_chosen_on_train():
    read = {
        name: shipped_jobs.Read({"knn": Score("spec/knn", held_out, np.full(4, right))}, np.empty(0))
        for name, held_out, right in (("arpg", 0.7, 0.0), ("randar", 0.6, 1.0))
    }
    assert shipped.better(read, "knn") == "arpg"


def test_guesses_by_hand():
    task = shipped_jobs.Task(np.zeros(0, int), np.zeros(0, bool), np.array([2]))
    part = shipped_jobs.Part(np.zeros((1, 28, 28), np.uint8), task, ("a", "b", "c", "d"))
    scores = np.log(np.array([[[0.1], [0.2], [0.4], [0.3]]])) + 7
    (guess,) = shipped.guesses(scores, part)
    assert (guess.truth, [name for name, _ in guess.top]) == ("c", ["c", "d", "b"])
    assert [share for _, share in guess.top] == pytest.approx([0.4, 0.3, 0.2])


def test_a_judge_reads_pixels_as_it_was_fitted():
    class Mean:
        def predict(self, x):
            return (x.mean(1) > 0.5).astype(int)

    pixels = np.stack([np.zeros(784, np.float32), np.ones(784, np.float32)])
    assert shipped_jobs.Judge("pixels", Mean()).predict(pixels).tolist() == [0, 1]
    assert shipped_jobs.flat(np.full((1, 28, 28), 255, np.uint8)).tolist() == [[1.0] * 784]


def test_numbers_on_all_images_are_left_out_where_there_are_none():
    assert shipped_page.on_all(FULL, "linear", "best", "top1") == "92.5 [92.0, 93.0]"
    assert shipped_page.on_all(FULL, "linear", "hog", "top1") is None
    assert shipped_page.on_all({}, "linear", "hog", "top1") is None


def test_a_labelled_sheet_holds_its_images_in_order():
    images = np.stack([np.full((4, 4), value, np.uint8) for value in (0, 100, 200)])
    rows = [pictures.Row("", images), pictures.Row("", images[:1], ("wrong",), (True,))]
    sheet = pictures.labelled_sheet(rows, zoom=10, label_width=0)
    values = np.asarray(sheet)
    assert sheet.size == (3 * (40 + pictures.SPACE), 2 * 40 + pictures.LINE + 2 * pictures.SPACE)
    assert [values[20, 20 + c * (40 + pictures.SPACE), 0] for c in range(3)] == [0, 100, 200]
    below = values[85 : 85 + pictures.LINE + 5]
    assert (below == np.array(pictures.WRONG)).all(-1).any()


def test_pictures_are_composed_two_in_a_row():
    panel = Image.new("RGB", (50, 30), "black")
    made = np.asarray(pictures.composed([("a", panel), ("b", panel), ("c", panel)], margin=10))
    assert made.shape[1] == 2 * 50 + 3 * 10
    black = (made == 0).all(-1)
    assert black.sum() == 3 * 50 * 30
