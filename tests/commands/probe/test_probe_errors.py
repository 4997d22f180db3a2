"""Odd data and wrong arguments: a sentence each, before images are read."""

from __future__ import annotations

import pytest
from probing import picture, probe
from randfeat.probes import Record
from records import load_all


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ([], "give a STORE, a MODEL and DATA, or --train STORE --test STORE"),
        (["a", "b", "c"], "give a STORE, a MODEL and DATA"),
        (["--train", "a"], "give a STORE, a MODEL and DATA"),
        (["--train", "nowhere", "--test", "nowhere"], "there is no feature store nowhere"),
        (["nowhere"], "nowhere is no feature store: give DATA as well for a model to read"),
        (["nowhere", "{table}"], "nowhere"),
        (
            ["{model}", "{table}", "--group", "nobody"],
            "metadata.csv has no column nobody: there is path, label, photographer",
        ),
        (["{folder}", "{folder}"], "config.json"),
        (["{model}", "{folder}", "--group", "writer"], "is no table, so it has no column writer"),
        (["{model}", "{folder}", "--test-share", "0.7"], "share=0.7: expected more than 0 and at most 0.5"),
        (["{model}", "{table}", "--split", "train", "nonsense"], "has the splits test, train, not 'nonsense'"),
        (["{model}", "{table}", "--spec", "raster/nonsense"], "raster/nonsense"),
        (["{model}", "{folder}/ant"], "has no labels"),
        (["{model}", "{table}", "--test-share", "0.2"], "train and test are given already"),
        (["{model}", "{table}", "--recipe", "mae"], "--recipe is for linear probes"),
        (["{stores}/train", "--split", "train", "test"], "--split, --labels and --label-column are for DATA"),
        (["{stores}/train", "--spec", "pooled"], "holds no feature pooled: there is raster/causal/token/L2/mean/mean"),
    ],
)
def test_errors_are_one_sentence_and_leave_no_records(what, says, model, table, folder, stores, tmp_path, capsys):
    given = [word.format(model=model, table=table, folder=folder, stores=stores) for word in what]
    assert probe("knn", *given, out=tmp_path / "out") == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("randfeat probe: ")
    assert says in said
    assert not list((tmp_path / "out").glob("*.json"))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--group", "nobody"], "has no column nobody"),
        (["--test-share", "0.2"], "train and test are given already"),
        (["--label-column", "nobody"], "metadata.csv has no column nobody: there is path, label, photographer, split"),
        (["--tasks", "attentive", "--split", "train", "nonsense"], "has the splits test, train, not 'nonsense'"),
        (["{stores}/train,{stores}/test", "--spec", "pooled"], "holds no feature pooled"),
    ],
)
def test_what_is_wrong_is_said_before_images_are_read(more, says, model, table, stores, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("randfeat.commands.probe.inputs.extract", lambda *of: pytest.fail("images were read"))
    given = [word.format(stores=stores) for word in more]
    assert probe("compare", model, *given, out=tmp_path, more=["--data", table]) == 1
    assert says in capsys.readouterr().err


def test_no_train_is_said_before_images_are_read(model, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("randfeat.commands.probe.inputs.extract", lambda *of: pytest.fail("images were read"))
    assert probe("knn", model, folder, out=tmp_path, more=["--test-share", 0]) == 1
    assert "--test-share 0 leaves no train images, which knn needs" in capsys.readouterr().err


def test_labels_of_a_column_with_another_name(model, table, tmp_path, capsys):
    other = table.parent / "breeds.csv"
    lines = (table / "metadata.csv").read_text().replace("path,label", "path,breed").splitlines()
    other.write_text("\n".join(f"photos/{line}" if ".png" in line else line for line in lines))
    assert probe("knn", model, other, out=tmp_path / "a") == 1
    said = capsys.readouterr().err
    assert "has no labels: its columns are path, breed, photographer, split, expected one called label" in said
    assert probe("knn", model, other, out=tmp_path / "b", more=["--label-column", "breed", "--no-search"]) == 0
    assert set(load_all(tmp_path / "b")[0].arrays["truth"]) == {"ant", "bee", "cat"}


def test_a_blank_column_of_labels_is_named(model, table, tmp_path, capsys):
    blank = table.parent / "blank.csv"
    lines = (table / "metadata.csv").read_text().splitlines()[1:]
    blank.write_text("path,label\n" + "".join(f"photos/{line.split(',')[0]},\n" for line in lines))
    assert probe("knn", model, blank, out=tmp_path / "a") == 1
    assert "blank.csv has no labels: its column label is blank" in capsys.readouterr().err


def test_odd_data_work_or_say_why(model, tmp_path, capsys):
    def photos(name, train, test):
        for part, labels in (("train", train), ("test", test)):
            for number, label in enumerate(labels):
                path = tmp_path / name / part / f"c{label}" / f"{part}{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                picture(label, number + 50 * (part == "test")).save(path)
        return tmp_path / name

    one_each = photos("one_each", [0, 1, 2], [0, 1, 2])
    assert probe("all", model, one_each, out=tmp_path / "a") == 0
    said = capsys.readouterr().err
    assert "note: fewshot is left out: class c0 has 1 images for 5 shots." in said
    assert "note: retrieval is left out: no class has two test images." in said
    assert said.count("nothing is chosen, the first candidate is taken") == 1
    assert {record.task for record in load_all(tmp_path / "a")} == {"knn", "linear", "cluster"}
    unseen = photos("unseen", [0, 0, 0, 1, 1, 1], [0, 1, 2, 2])
    assert probe("all", model, unseen, out=tmp_path / "b", more=["--shots", 2]) == 0
    said = capsys.readouterr().err
    assert "note: fewshot is left out: test has the class c2, which train lacks." in said
    assert "note: 2 test images are of classes that train lacks (first: c2) and count as wrong." in said
    assert probe("knn", model, photos("single", [0, 0], [0, 0]), out=tmp_path / "c") == 1
    assert "labels hold one class (c0), expected two or more" in capsys.readouterr().err
    assert probe("knn", model, photos("few", [0, 1], [0]), out=tmp_path / "d") == 0
    twice = photos("twice", [0, 0, 1, 1], [0, 1])
    (twice / "test" / "c0" / "copy.png").write_bytes((twice / "train" / "c0" / "train0.png").read_bytes())
    capsys.readouterr()
    assert probe("knn", model, twice, out=tmp_path / "e") == 0
    assert "1 of 3 test images have exactly the small/tiny" in capsys.readouterr().err


def test_parts_of_other_names_are_asked_for(model, table, tmp_path, capsys):
    other = table.parent / "other.csv"
    text = (table / "metadata.csv").read_text().replace(",test", ",evaluation")
    other.write_text("\n".join(f"photos/{line}" if ".png" in line else line for line in text.splitlines()))
    assert probe("knn", model, other, out=tmp_path) == 1
    assert "has the splits evaluation, train: say which one" in capsys.readouterr().err
    assert probe("knn", model, other, out=tmp_path, more=["--split", "train", "evaluation"]) == 0
    assert load_all(tmp_path)[0].scores["k=20"].n == 30


def test_a_store_of_other_images_is_not_compared(model, table, folder, stores, tmp_path, capsys):
    both = f"{stores / 'train'},{stores / 'test'}"
    assert probe("compare", both, f"{stores / 'test'},{stores / 'train'}", out=tmp_path) == 1
    assert "has no features of" in capsys.readouterr().err
    assert probe("compare", both, both, out=tmp_path) == 1
    assert "is given twice" in capsys.readouterr().err
    assert probe("compare", both, out=tmp_path, more=["--baselines"]) == 1
    assert "baselines read pictures, and there are none here" in capsys.readouterr().err


def test_records_name_what_made_them(model, table, tmp_path):
    assert probe("linear", model, table, out=tmp_path) == 0
    record = next(Record.load(path) for path in tmp_path.glob("linear-small-tiny*.json"))
    assert set(record.fingerprints) == {"features", "data", "labels"}
    assert {"randfeat", "numpy", "scikit-learn"} <= set(record.made_with)


def test_options_know_the_tasks_and_recipes_that_there_are():
    from randfeat.probes import HeadRecipe
    from randfeat.probes.tasks.classification import MEASURES
    from randfeat.probes.tasks.classification import RECIPES as KNOWN

    from randfeat.commands.probe import PROBES, options

    assert options.RECIPES == KNOWN
    assert all(isinstance(getattr(HeadRecipe, name)(), HeadRecipe) for name in options.RECIPES)
    assert {*options.VECTOR_TASKS, "attentive"} == set(MEASURES)
    assert set(MEASURES) | {"correspondence", "segmentation", "likelihood", "sweep", "all", "compare"} <= set(PROBES)
