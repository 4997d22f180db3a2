"""The script for GPUs, on the processor with tiny networks."""

import json

import pytest
import torch

SMALL = ["--device", "cpu", "--size", "tiny", "--compiler", "eager", "--batches", "2", "--images", "2"]


@pytest.mark.slow
def test_checks_come_first_then_all_cases_are_timed(tmp_path):
    from benchmarks import gpu

    try:
        gpu.main([*SMALL, "--out", str(tmp_path)])
    finally:
        torch.compiler.reset()
    found = json.loads((tmp_path / "results.json").read_text())
    assert [check.partition(":")[0] for check in found["checks"]] == ["draws", "samples", "resume", "ddp"]
    assert found["failures"] == ["goldens were not checked: give the folder of recorded outputs as --golden"]
    jobs = [case["job"] for case in found["cases"]]
    assert {job: jobs.count(job) for job in jobs} == {
        "sampling": 3,
        "extraction": 4,
        "training": 2,
        "compiled sampling": 3,
    }
    for case in found["cases"]:
        for one in case["variants"].values():
            assert len(one["processor"]) == gpu.ROUNDS
            assert min(one["processor"]) > 0
            assert one["flops"] > 0
    assert "not compiled" in (tmp_path / "table.md").read_text()


def test_what_there_is_no_time_for_is_named(tmp_path, capsys):
    from benchmarks import gpu

    assert gpu.main([*SMALL, "--minutes", "0.0001", "--out", str(tmp_path)]) == 1
    found = json.loads((tmp_path / "results.json").read_text())
    assert not found["cases"]
    assert len([line for line in found["failures"] if line.startswith("there was no time for")]) == 12


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_without_a_gpu_it_says_what_to_give():
    from benchmarks import gpu

    with pytest.raises(SystemExit, match="there is no CUDA device: give --device cpu"):
        gpu.main([])
