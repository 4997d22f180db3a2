"""Classification by likelihood beside probes of the same images."""

from __future__ import annotations

import numpy as np
import pytest
from pipelines import make_sampler
from probing import FAST
from records import load_all

from randfeat import Pipeline, cli, load


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """A model whose classes are called as those of the data."""
    path = tmp_path_factory.mktemp("model") / "named"
    made = make_sampler()
    Pipeline(made.tokenizer, made.generator, ["bee", "ant", "cat"]).save(path)
    return path


def test_likelihood_stands_beside_probes_of_the_same_images(named, table, tmp_path):
    command = ["probe", "likelihood", str(named), str(table), "-o", str(tmp_path), "--group", "photographer"]
    assert cli.main([*command, "--orders", "1", "4", "--tasks", "knn", *FAST]) == 0
    record, other = load_all(tmp_path)[:2]
    assert (record.task, other.task, list(record.scores)) == ("likelihood", "knn", ["K=4", "K=1"])
    assert record.arrays["paths"].tolist() == other.arrays["paths"].tolist()
    assert set(record.arrays["groups"]) == {"p4", "p5"}
    pipeline, names = load(named), np.array(["bee", "ant", "cat"])
    paths = [str(table / path) for path in record.arrays["paths"].tolist()]
    best = [names[pipeline.classify(paths, orders=k).log_prob.argmax(1)] for k in (4, 1)]
    assert record.arrays["predicted"].tolist() == best[0].tolist()
    assert record.scores["K=4"].value == pytest.approx((best[0] == record.arrays["truth"]).mean())
    assert record.arrays["runs K=1"].shape == (4, len(paths))
    assert record.arrays["runs K=1"][0].tolist() == (best[1] == record.arrays["truth"]).tolist()
    text = (tmp_path / "table.md").read_text()
    assert "| Likelihood | top-1, 4 orders | top-1, 1 order |" in text
    assert "| k-NN |" in text
    assert cli.main([*command, "--orders", "4", "--halving", "--tasks", *FAST]) == 0
    assert "| Likelihood | top-1, 4 orders |" in (tmp_path / "table.md").read_text()


def test_likelihood_says_what_it_needs(model, named, table, tmp_path, capsys):
    command = ["probe", "likelihood", str(named), str(table), "-o", str(tmp_path), *FAST]
    for more, says in (
        (["--orders", "0"], "at least one order, got 0"),
        (["--tasks", "--baselines"], "for the probes of --tasks"),
        (["--recipe", "mae"], "leave them out"),
    ):
        assert cli.main([*command, *more]) == 1
        assert says in capsys.readouterr().err
    assert cli.main(["probe", "likelihood", str(model), str(table), "-o", str(tmp_path), *FAST]) == 1
    assert "the class ant of the data is none of the model's" in capsys.readouterr().err
