import multiprocessing
import socket
from dataclasses import replace

import pytest
import torch
from material import LONG, run, same, train_in_group
from randfeat.pretrain import RuntimeConfig


def torchrun(world, *arguments, **more):
    """Calls `train_in_group` in as many processes as torchrun would start; the exit codes of all."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["randfeat.pretrain"])
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    workers = [
        context.Process(target=train_in_group, args=(rank, world, port, *arguments), kwargs=more)
        for rank in range(world)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        worker.kill()
    return [worker.exitcode for worker in workers]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Result of one process."""
    torch.set_num_threads(1)
    return run(tmp_path_factory.mktemp("alone") / "run", SHORT, ALIKE)


SHORT = replace(LONG, steps=6, batch_size=9, eval_every=3)  # epochs of 9, 9, 9, 9 and 4 images
ALIKE = RuntimeConfig(save_every=2, micro_batch=2)  # so that dropout is the same, whoever computes what


def close(result, other, atol=1e-5):
    (history, weights), (expected, expected_weights) = result, other
    for name, value in weights.items():
        torch.testing.assert_close(value, expected_weights[name], rtol=0, atol=atol)
    for (_, ours), (_, theirs) in zip(
        history.train + history.validation, expected.train + expected.validation, strict=True
    ):
        assert ours == pytest.approx(theirs, abs=1e-5)
    return history.kept_step == expected.kept_step


@pytest.mark.parametrize(("parallel", "world"), [("ddp", 2), ("fsdp", 2), ("ddp", 3), ("fsdp", 3)])
def test_any_number_of_processes_trains_the_same(tmp_path, alone, parallel, world):
    running = replace(ALIKE, parallel=parallel, recompute=world == 3)
    assert torchrun(world, tmp_path / "run", SHORT, running, tmp_path / "made.pt") == [0] * world
    assert close(torch.load(tmp_path / "made.pt", weights_only=False), alone)


@pytest.mark.parametrize(
    ("parallel", "control"), [("ddp", "all"), ("fsdp", "all"), ("ddp", "alone"), ("fsdp", "alone")]
)
def test_control_is_trained_the_same_in_two_processes(tmp_path, parallel, control):
    torch.set_num_threads(1)
    expected = run(tmp_path / "alone", SHORT, ALIKE, control=control)
    assert expected[1]["control.proj.weight"].any()
    running, made = replace(ALIKE, parallel=parallel), tmp_path / "made.pt"
    assert torchrun(2, tmp_path / "run", SHORT, running, made, control=control) == [0, 0]
    # behind the last projection, zero at first, gradients are little more than rounding, of which Adam makes steps
    assert close(torch.load(made, weights_only=False), expected, atol=1e-4)


def test_a_run_goes_on_in_another_number_of_processes(tmp_path, alone):
    directory, made = tmp_path / "run", tmp_path / "made.pt"
    assert 0 not in torchrun(2, directory, SHORT, replace(ALIKE, parallel="fsdp"), made, 3)  # stopped after the third
    assert 0 not in torchrun(3, directory, SHORT, ALIKE, made, 5)
    assert close(run(directory, SHORT, ALIKE), alone)


def test_without_dropout_a_share_of_any_size_trains_the_same(tmp_path):
    """Run in which nothing says how many images go through the network at once."""
    config = replace(SHORT, batch_size=7)
    expected = run(None, config, dropout=0.0)
    assert torchrun(3, tmp_path / "run", config, RuntimeConfig(), tmp_path / "made.pt", dropout=0.0) == [0] * 3
    assert close(torch.load(tmp_path / "made.pt", weights_only=False), expected)


def test_a_signal_to_one_process_ends_all(tmp_path, alone):
    codes = torchrun(2, tmp_path / "run", SHORT, ALIKE, tmp_path / "made.pt", signalled=3)
    assert 0 not in codes
    assert (tmp_path / "run" / "step-00000004").is_dir()
    assert not (tmp_path / "run" / "step-00000006").exists()
    result = run(tmp_path / "run", SHORT, ALIKE)
    assert close(result, alone)
    assert same(result[1], run(tmp_path / "run", SHORT, ALIKE)[1])
