import errno
import json
import multiprocessing
import os
import random
import resource
import signal
from dataclasses import replace

import kills
import pytest
import torch
from filelock import FileLock
from material import LONG, Gone, a_model, run, run_in_process, same, stop_at
from randfeat.pretrain import RuntimeConfig, Stopped, checkpoints
from randfeat.pretrain.checkpoints import Checkpoints


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """History and weights of a run that nothing stopped."""
    torch.set_num_threads(1)
    return run(tmp_path_factory.mktemp("undisturbed") / "run")


def stopped(directory, step, **how):
    with pytest.raises(Gone):
        run(directory, on_step=stop_at(step), **how)
    return directory


def saved(directory):
    return sorted(int(path.name[5:]) for path in directory.glob("step-*"))


def equal(result, other):
    history, weights = result
    expected, expected_weights = other
    assert same(weights, expected_weights)
    for name in ("train", "validation", "kept_step", "skipped"):
        assert getattr(history, name) == getattr(expected, name)
    return True


def test_a_run_in_a_directory_is_as_one_in_memory(undisturbed):
    assert equal(run(None), undisturbed)


@pytest.mark.parametrize("step", [1, 6, 13, 29])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path, undisturbed, step):
    stopped(tmp_path / "run", step)
    told = []
    assert equal(run(tmp_path / "run", on_step=told.append), undisturbed)
    assert told[0].step <= step
    assert step < 6 or told[0].step > 1  # it went on from a checkpoint
    assert equal(run(tmp_path / "run", on_step=told.clear), undisturbed)  # and a finished one is not trained again
    assert told


def test_the_last_and_the_best_stay(tmp_path):
    history, _ = run(tmp_path / "run", running=RuntimeConfig(save_every=3, keep=2))
    assert set(saved(tmp_path / "run")) == {27, 30} | {history.kept_step}
    again, _ = run(tmp_path / "other", running=RuntimeConfig(save_every=3, keep=1))
    assert set(saved(tmp_path / "other")) == {30, again.kept_step}


def test_a_checkpoint_holds_tensors_and_json_alone(tmp_path):
    run(tmp_path / "run")
    newest = tmp_path / "run" / f"step-{max(saved(tmp_path / 'run')):08}"
    files = {path.name for path in newest.iterdir()}
    assert files == {"model.safetensors", "optimiser.safetensors", "average.safetensors", "state.json"}
    assert json.loads((newest / "state.json").read_text())["step"] == 30
    assert not list((tmp_path / "run").glob(".step*"))


def damage_truncate(path):
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def damage_flip(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["model.safetensors", "optimiser.safetensors", "average.safetensors", "state.json"])
@pytest.mark.parametrize("damage", [damage_truncate, damage_flip, os.unlink], ids=["cut", "flipped", "gone"])
def test_what_is_damaged_is_not_used(tmp_path, undisturbed, capsys, name, damage):
    stopped(tmp_path / "run", 13)
    steps = saved(tmp_path / "run")
    damage(tmp_path / "run" / f"step-{steps[-1]:08}" / name)
    told = []
    assert equal(run(tmp_path / "run", on_step=told.append), undisturbed)
    assert told[0].step == steps[-2] + 1
    assert f"step-{steps[-1]:08} is damaged and removed: " in capsys.readouterr().err


def test_what_was_being_written_at_a_kill_is_removed(tmp_path, undisturbed):
    stopped(tmp_path / "run", 13)
    (tmp_path / "run" / ".step-00000016.abc" / "step-00000016").mkdir(parents=True)
    assert equal(run(tmp_path / "run"), undisturbed)
    assert not list((tmp_path / "run").glob(".step*"))


def test_another_run_is_refused(tmp_path):
    stopped(tmp_path / "run", 5)
    with pytest.raises(ValueError, match=r"holds a run with training\.learning_rate 0\.01, not 0.1: choose"):
        run(tmp_path / "run", replace(LONG, learning_rate=0.1))
    with pytest.raises(ValueError, match=r"settings\.data None, not other: choose another directory"):
        run(tmp_path / "run", settings={"data": "other"})
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    with pytest.raises(FileExistsError, match="photos holds something else: choose another directory"):
        run(tmp_path / "photos")


def test_two_runs_in_one_directory_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("randfeat.utils.resume.LOCK_TIMEOUT", 0.1)
    stopped(tmp_path / "run", 5)
    with FileLock(tmp_path / "run" / "lock"), pytest.raises(RuntimeError, match="another process is training in"):
        run(tmp_path / "run")


def test_a_choice_of_the_machine_may_change(tmp_path, undisturbed):
    stopped(tmp_path / "run", 13)
    assert equal(run(tmp_path / "run", running=RuntimeConfig(save_every=7, recompute=True)), undisturbed)


# a full disk ------------------------------------------------------------------------------------------------


def test_a_full_disk_is_one_sentence_and_the_last_checkpoint_stays(tmp_path, undisturbed, monkeypatch):
    write = checkpoints.save_file

    def full(tensors, path):
        if "step-00000012" in str(path) and path.name.startswith("optimiser"):
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(tensors, path)

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(OSError, match=r"step 12 could not be saved in .*No space .*from step 10") as caught:
        run(tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert max(saved(tmp_path / "run")) == 10
    assert not list((tmp_path / "run").glob(".step*"))
    monkeypatch.setattr(checkpoints, "save_file", write)
    assert equal(run(tmp_path / "run"), undisturbed)


def test_a_write_that_the_system_refuses(tmp_path, undisturbed):
    """A real one: a limit on the size of files, set while training."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(step):
        if step.step == 14:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))

    try:
        with pytest.raises(OSError, match=r"could not be saved in .*goes on from step 1\d$"):
            run(tmp_path / "run", on_step=limit)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert equal(run(tmp_path / "run"), undisturbed)


def test_nothing_saved_yet_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "save_file", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space")))
    with pytest.raises(OSError, match="same command again, which starts anew"):
        run(tmp_path / "run")


# signals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGUSR1", 75)])
def test_a_signal_saves_and_ends(tmp_path, undisturbed, number, code):
    number = getattr(signal, number)
    before = signal.getsignal(number)

    def send(step):
        if step.step == 6:
            os.kill(os.getpid(), number)

    with pytest.raises(Stopped, match="stopped after step 7, which is saved") as caught:
        run(tmp_path / "run", on_step=send)
    assert caught.value.code == code
    assert signal.getsignal(number) == before
    assert max(saved(tmp_path / "run")) == 7
    assert equal(run(tmp_path / "run"), undisturbed)


def test_without_a_directory_signals_are_left_alone():
    def send(step):
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as caught:
        run(None, on_step=send)
    assert not isinstance(caught.value, Stopped)


@pytest.mark.slow
def test_killed_at_ten_touches_of_a_file_a_run_ends_as_one_that_was_not(tmp_path):
    config = replace(LONG, steps=300, eval_every=50)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["randfeat.pretrain"])
    draw = random.Random(0)
    running = RuntimeConfig(save_every=10)

    def ends(name, *death):
        touches, weights = context.Value("i", 0), tmp_path / f"{name}.pt"
        arguments = (tmp_path / name, config, running, weights, touches, *death)
        process = context.Process(target=run_in_process, args=arguments)
        process.start()
        process.join()
        return process.exitcode, touches.value, weights

    status, touches, expected = ends("undisturbed")
    assert status == 0
    steps = set()
    for turn in range(10):
        torn = bool(turn % 2)
        assert kills.was_killed(ends("killed", draw.randint(1, touches // 10), torn)[0], torn)
        newest = Checkpoints(tmp_path / "killed", {**_settings(config)}, 2)._newest_intact()
        assert newest == max(saved(tmp_path / "killed"), default=0)
        steps.add(newest)
    assert len(steps) > 3
    status, _, weights = ends("killed")
    assert status == 0
    assert same(torch.load(weights), torch.load(expected))


def _settings(config):
    return {"settings": {}, "model": a_model().config, "training": vars(config)}
