"""The runner of `python -m benchmarks` on jobs that are made up, and once all jobs at tiny sizes."""

import importlib.util
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


def taking(seconds: float):
    """Make a call that says that it took so long."""
    from benchmarks.cases import Spent

    return lambda: lambda: Spent(seconds, seconds / 2)


class Fake:
    """A job of two cases: one with a peer, and a product whose operations are known."""

    about = "made up"

    def __init__(self, peer: float = 3.0) -> None:
        self.peer = peer

    def cases(self, setting) -> Iterator:
        from benchmarks.cases import Axis, Case

        peers = {"slow": taking(self.peer), "of two": taking(self.peer)}
        yield Case("first", taking(1.0), peers, peer_units={"of two": 2}, facts=lambda: {"equal": 1.0})
        a, b = torch.zeros(4, 5), torch.zeros(5, 6)
        for value in (1, 2):
            axis = Axis("products", "rows", value, 8)
            yield Case(f"product {value}", lambda: partial(torch.mm, a, b), axis=axis)


class Broken(Fake):
    def cases(self, setting) -> Iterator:
        raise ValueError("there is nothing to measure")


@pytest.fixture
def jobs(monkeypatch):
    from benchmarks import measure

    monkeypatch.setattr("benchmarks.runner.JOBS", {"fake": Fake(), "broken": Broken()})
    monkeypatch.setattr("benchmarks.__main__.JOBS", {"fake": Fake(), "broken": Broken()})
    monkeypatch.setattr(measure, "limits", lambda dtypes: {"copy": 1e9, "float32": 1e9})
    return measure


def test_a_run_writes_results_a_table_and_plots(jobs, tmp_path, capsys):
    from benchmarks.__main__ import main

    code = main(["--jobs", "fake", "broken", "--level", "tiny", "--rounds", "3", "--out", str(tmp_path)])
    assert code == 1
    assert "broken failed: ValueError: there is nothing to measure" in capsys.readouterr().err
    measured = json.loads((tmp_path / "results.json").read_text())
    first, product, _ = measured["cases"]
    assert first["ratios"]["slow"] == {"ratio": 3.0, "lowest": 3.0, "highest": 3.0}
    assert first["ratios"]["of two"]["ratio"] == 1.5
    assert first["variants"]["ours"]["seconds"] == [1.0] * 3
    assert product["variants"]["ours"]["flops"] == 2 * 4 * 5 * 6
    assert product["variants"]["ours"]["bytes"] == 4 * (4 * 5 + 5 * 6 + 4 * 6)
    assert 0 < product["variants"]["ours"]["of the limit"] < 1
    table = (tmp_path / "table.md").read_text()
    assert "| first (equal: 1) | ours | 500 ms [500 ms, 500 ms] | 2 images/s |" in table
    assert "**3.00** [3.00, 3.00]" in table
    assert "| products | 1 to 2 rows |" in table
    assert {file.name for file in tmp_path.glob("*.png")} == {"benchmarks_ratios.png", "benchmarks_growth.png"}


def test_cases_are_chosen_by_their_names(jobs, tmp_path):
    from benchmarks.__main__ import main

    assert main(["--jobs", "fake", "--only", "prod", "2", "--level", "tiny", "--out", str(tmp_path)]) == 0
    assert [case["case"] for case in json.loads((tmp_path / "results.json").read_text())["cases"]] == ["product 2"]


@pytest.mark.parametrize(("words", "level"), [([], "full"), (["--quick"], "quick"), (["--level", "tiny"], "tiny")])
def test_levels_of_the_work(words, level):
    from benchmarks.__main__ import parser

    assert parser().parse_args(words).level == level


def test_a_peer_is_a_checkout(capsys):
    from benchmarks.__main__ import main

    with pytest.raises(SystemExit):
        main(["--peer", "randar=/nowhere"])
    assert "NAME=PATH with a NAME of randar, arpg, llamagen" in capsys.readouterr().err


def test_attention_on_a_cpu_is_counted():
    from benchmarks.measure import Counter

    q, k = torch.zeros(1, 2, 3, 8), torch.zeros(1, 2, 5, 8)
    with Counter() as counter, torch.inference_mode():
        torch.nn.functional.scaled_dot_product_attention(q, k, k)
    assert counter.flops == 2 * (2 * 2 * 3 * 5 * 8)


def test_growth_finds_exponents_and_bends():
    from benchmarks import growth

    sizes = [1, 2, 4, 8, 16, 32]
    straight = growth.fit(sizes, [3 * size**1.5 for size in sizes])
    assert straight.exponent == pytest.approx(1.5)
    assert straight.bend is None
    assert growth.extrapolated(straight, 32, 3 * 32**1.5, 64) == pytest.approx(3 * 64**1.5)
    bent = growth.fit(sizes, [max(8, size) for size in sizes])
    assert bent.bend == pytest.approx(8)
    assert bent.before == pytest.approx(0, abs=1e-9)
    assert bent.after == pytest.approx(1)


# ratios that must not fall --------------------------------------------------------------------------------------------


@pytest.fixture
def setting(tmp_path):
    from benchmarks.cases import Setting

    (tmp_path / "scratch").mkdir()
    return Setting("tiny", ("float32",), "tiny", {}, tmp_path / "scratch")


def committed(place: Path, ratios: dict, case: str = "first") -> Path:
    of_job = {"size": "tiny", "level": "tiny", "cases": {case: ["slow"]}}
    place.write_text(json.dumps({"jobs": {"fake": of_job}, "ratios": ratios}))
    return place


@pytest.mark.parametrize(("before", "code"), [(3.1, 0), (4.2, 0), (4.4, 1)])
def test_a_ratio_that_falls_by_more_than_30_percent_fails(jobs, setting, tmp_path, capsys, before, code):
    from benchmarks import check

    file = committed(tmp_path / "ratios.json", {jobs.machine()["processor"]: {"fake: first / slow": before}})
    assert check.run(setting, path=file) == code
    assert ("FELL" in capsys.readouterr().err) == bool(code)


def test_on_another_processor_a_fall_is_told_and_fails_nothing(setting, tmp_path, capsys, jobs):
    from benchmarks import check

    file = committed(tmp_path / "ratios.json", {"another": {"fake: first / slow": 9.0}})
    assert check.run(setting, path=file) == 0
    said = capsys.readouterr()
    assert "nothing fails" in said.out
    assert "FELL" in said.err


def test_a_fall_is_measured_again():
    from benchmarks import check

    tries = iter([1.0, 1.2, 2.9])
    assert check.best_of(lambda: {"slow": next(tries)}, {"slow": 4.0}) == {"slow": 2.9}
    tries = iter([1.0, 2.9, 0.0])
    assert check.best_of(lambda: {"slow": next(tries)}, {"slow": 4.0}) == {"slow": 2.9}
    assert next(tries) == 0.0


def test_ratios_are_committed_by_processor(jobs, setting, tmp_path):
    from benchmarks import check

    ratios = {"other": {"a": 2.0, "b": 5.0}, "third": {"a": 1.5}}
    file = committed(tmp_path / "ratios.json", ratios)
    assert check.run(setting, commit=True, path=file) == 0
    stored = json.loads(file.read_text())["ratios"]
    assert stored == {**ratios, jobs.machine()["processor"]: {"fake: first / slow": 3.0}}
    assert check.committed(ratios, "unknown") == {"a": 1.5, "b": 5.0}
    assert check.committed(ratios, "third") == {"a": 1.5}


def test_a_case_that_is_renamed_is_not_forgotten(jobs, setting, tmp_path):
    from benchmarks import check

    with pytest.raises(ValueError, match="fake has no case gone: rename it"):
        check.run(setting, path=committed(tmp_path / "ratios.json", {}, case="gone"))


def test_the_committed_ratios_are_of_cases_that_are_listed():
    from benchmarks import check

    stored = json.loads(check.COMMITTED.read_text())
    asked = {
        f"{job}: {case} / {peer}"
        for job, one in stored["jobs"].items()
        for case, peers in one["cases"].items()
        for peer in peers
    }
    assert stored["ratios"]
    assert all(set(of_one) == asked for of_one in stored["ratios"].values())


# all jobs -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_job_runs_at_tiny_sizes(tmp_path):
    from benchmarks.__main__ import main
    from benchmarks.cases import JOBS

    missing = set() if importlib.util.find_spec("lancedb") else {"lancedb"}
    chosen = [job for job in JOBS if job not in missing]
    words = ["--size", "tiny", "--level", "tiny", "--rounds", "1", "--out", str(tmp_path)]
    assert main([*words, "--jobs", *chosen]) == 0
    measured = json.loads((tmp_path / "results.json").read_text())
    assert {case["job"] for case in measured["cases"]} == set(chosen) - {"curves"}  # it needs official code
    assert main([*words, "--jobs", "knn", "--only", "top_k", "--memory"]) == 0
    (case,) = json.loads((tmp_path / "results.json").read_text())["cases"]
    assert all(one["memory"] > 0 for one in case["variants"].values())
