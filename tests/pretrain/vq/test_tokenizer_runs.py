"""Runs of tokenizers on disk: resumed, killed, in several processes, and with input that does not fit."""

import json
import multiprocessing
import random
import signal
import socket
from dataclasses import replace

import kills
import numpy as np
import pytest
import torch
from bands import write_bands
from material import Gone, same, stop_at
from randfeat.pretrain import Stopped
from randfeat.pretrain.config import OptimConfig
from randfeat.pretrain.vq import data as vq_data
from randfeat.pretrain.vq import read_tokenizer_recipe, train_tokenizer
from randfeat.pretrain.vq.config import ImagesConfig, LossConfig, PerceptualConfig, QuantizerConfig
from tokenizing import GAN, RECIPE, Squares, train_in_group, train_in_process, trained

from randfeat.data.errors import UnfitImage
from randfeat.data.sources import open_source
from randfeat.tokenizers import LlamaGenVQ
from randfeat.weights.loading import load_tokenizer


@pytest.fixture(scope="module", params=["plain", "gan"])
def recipe(request):
    return {"plain": RECIPE, "gan": GAN}[request.param]


@pytest.fixture(scope="module")
def undisturbed(recipe, tmp_path_factory):
    torch.set_num_threads(1)
    return trained(tmp_path_factory.mktemp("undisturbed") / "run", recipe)


@pytest.mark.parametrize("step", [1, 4, 7])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path, recipe, undisturbed, step):
    with pytest.raises(Gone):
        trained(tmp_path / "run", recipe, on_step=stop_at(step))
    assert (tmp_path / "run" / "tokenizer").exists() == (step > 4)  # the first validation is after step 4
    assert same(trained(tmp_path / "run", recipe), undisturbed)


def test_a_stopped_run_has_the_tokenizer_of_its_best_validation(tmp_path):
    told = []
    with pytest.raises(Gone):
        trained(tmp_path / "run", on_step=stop_at(11), on_validation=lambda one: told.append((one.loss, kept(one))))
    assert len(told) == 2
    best = min(told, key=lambda one: one[0])[1]
    found = kept_weights(load_tokenizer(tmp_path / "run"))
    assert same(found, best)
    record = json.loads((tmp_path / "run" / "tokenizer" / "training.json").read_text())
    assert (record["finished"], record["history"]["kept_step"]) == (False, 4 * (1 + (told[1][0] < told[0][0])))
    trained(tmp_path / "run")  # goes on
    record = json.loads((tmp_path / "run" / "tokenizer" / "training.json").read_text())
    assert record["finished"]
    assert record["history"]["train"][-1][0] == RECIPE.training.steps


def kept(reconstruction):
    return kept_weights(reconstruction.tokenizer)


def kept_weights(tokenizer):
    return {name: value.clone() for name, value in tokenizer.state_dict().items()}


def test_images_read_at_each_step_give_what_those_in_memory_give(tmp_path, undisturbed, recipe, monkeypatch):
    monkeypatch.setattr(vq_data, "IN_MEMORY", 0)
    made = trained(tmp_path / "run", recipe, workers=1)
    assert same(made, undisturbed)


def test_a_signal_saves_and_ends(tmp_path, recipe, undisturbed):
    def send(done):
        if done.step == 5:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Stopped, match="after step 6"):
        trained(tmp_path / "run", recipe, on_step=send)
    assert same(trained(tmp_path / "run", recipe), undisturbed)


def test_a_run_that_is_over_returns_at_once(tmp_path, undisturbed, recipe):
    first = trained(tmp_path / "run", recipe)

    def never(step):
        raise AssertionError

    assert same(trained(tmp_path / "run", recipe, on_step=never), first)


@pytest.mark.slow
def test_what_was_trained_opens_and_reconstructs_better_than_untrained(tmp_path):
    training = replace(RECIPE.training, steps=300, eval_every=50)
    recipe = replace(RECIPE, training=training, quantizer=replace(RECIPE.quantizer, start=30))
    told, steps = [], []
    trained(tmp_path / "run", recipe, on_validation=told.append, on_step=steps.append)
    made = load_tokenizer(tmp_path / "run")
    assert (made.channels, made.stride, made.vocab_size) == (1, 4, 16)
    record = json.loads((tmp_path / "run" / "tokenizer" / "training.json").read_text())
    assert record["recipe"]["images"]["size"] == [8, 8]
    assert record["history"]["kept_step"] in range(50, 301, 50)
    assert min(one.loss for one in told) < 0.6 * steps[0].loss
    assert max(one.terms["psnr"] for one in told) > 14
    assert 0.5 < told[-1].terms["usage"] <= 1
    assert 1 <= told[-1].terms["perplexity"] <= 16 * told[-1].terms["usage"] + 1e-6
    assert told[-1].images.shape == told[-1].reconstructed.shape == (6, 1, 8, 8)
    assert set(steps[-1].terms) == {"l1", "mse", "codebook", "commitment"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "quantizer",
    [
        QuantizerConfig(vocab_size=16, code_dim=4, l2_norm=False),
        QuantizerConfig(kind="fsq", vocab_size=15, levels=(5, 3)),
        QuantizerConfig(kind="lfq", vocab_size=16),
    ],
    ids=["vq without norm", "fsq", "lfq"],
)
def test_every_quantiser_trains_and_resumes(tmp_path, quantizer):
    training = replace(RECIPE.training, steps=60, eval_every=20)
    recipe = replace(RECIPE, quantizer=replace(quantizer, start=10), training=training)
    errors = []
    whole = trained(tmp_path / "whole", recipe, on_step=lambda step: errors.append(step.terms["mse"]))
    with pytest.raises(Gone):
        trained(tmp_path / "run", recipe, on_step=stop_at(7))
    assert same(trained(tmp_path / "run", recipe), whole)
    assert np.mean(errors[-8:]) < 0.8 * np.mean(errors[:8])
    made = load_tokenizer(tmp_path / "run")
    assert made.vocab_size == quantizer.vocab_size
    tokens = torch.arange(made.vocab_size).view(1, 1, -1)
    assert made.decode(tokens).shape == (1, 1, 4, 4 * made.vocab_size)


def torchrun(world, *arguments):
    """Call `train_in_group` in as many processes as torchrun would start, and return the exit codes of all."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["randfeat.pretrain"])
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    workers = [context.Process(target=train_in_group, args=(rank, world, port, *arguments)) for rank in range(world)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(180)
        worker.kill()
    return [worker.exitcode for worker in workers]


def test_two_processes_train_as_one(tmp_path):
    """With few steps, since the nearest code turns rounding into another code sooner or later."""
    recipe = replace(RECIPE, training=replace(RECIPE.training, steps=4, learning_rate=1e-4))
    assert torchrun(2, tmp_path / "two", recipe) == [0, 0]
    one, two = trained(tmp_path / "one", recipe), trained(tmp_path / "two", recipe)
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-4)


def test_a_signal_to_one_of_two_processes_ends_both_and_they_go_on(tmp_path):
    codes = torchrun(2, tmp_path / "run", GAN, 6)
    assert all(codes)
    assert (tmp_path / "run" / "step-00000007").is_dir()
    assert torchrun(2, tmp_path / "run", GAN) == [0, 0]
    assert load_tokenizer(tmp_path / "run").vocab_size == 16


def test_latents_of_a_skipped_step_become_no_codes(tmp_path, monkeypatch):
    from randfeat.pretrain.vq.codebook import CodebookCare

    see, seen = CodebookCare.see, []

    def broken(care, tokens, latents):
        seen.append(care.pool)
        see(care, tokens, latents * float("nan") if 6 < len(seen) <= 9 else latents)  # a step has three pieces

    monkeypatch.setattr(CodebookCare, "see", broken)
    explode = [False]
    told = []

    def look(step):
        told.append(step.gradient_norm)
        explode[0] = step.step == 2

    make = LlamaGenVQ.pixels
    monkeypatch.setattr(LlamaGenVQ, "pixels", lambda self, codes: make(self, codes) * (np.nan if explode[0] else 1.0))
    made = trained(tmp_path / "run", on_step=look, held_out=0)
    assert [step for step, norm in enumerate(told, 1) if not np.isfinite(norm)] == [3]
    assert seen[9] is None  # the step after it begins anew
    assert all(value.isfinite().all() for value in made.values())


@pytest.mark.slow
def test_killed_at_ten_touches_of_a_file_a_run_ends_as_one_that_was_not(tmp_path):
    recipe = replace(GAN, training=replace(GAN.training, steps=120, eval_every=25))
    recipe = replace(recipe, running=replace(recipe.running, save_every=5))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["randfeat.pretrain"])
    draw = random.Random(0)

    def ends(name, *death):
        touches = context.Value("i", 0)
        process = context.Process(target=train_in_process, args=(tmp_path / name, recipe, touches, *death))
        process.start()
        process.join()
        return process.exitcode, touches.value

    status, touches = ends("whole")
    assert status == 0
    for turn in range(10):
        torn = bool(turn % 2)
        assert kills.was_killed(ends("run", draw.randint(1, touches // 10), torn)[0], torn)
    assert same(trained(tmp_path / "run", recipe), trained(tmp_path / "whole", recipe))


# images of other kinds ----------------------------------------------------------------------------------------------


def test_four_channels_of_sixteen_bits(tmp_path):
    source = open_source(write_bands(tmp_path / "bands", 12, 8))
    recipe = replace(RECIPE, images=replace(RECIPE.images, channels=4))
    trained(tmp_path / "run", recipe, source=source)
    made = load_tokenizer(tmp_path / "run")
    assert (made.channels, made.value_range) == (4, (0, 65535))


def test_colour_is_found_and_grey_is_found(tmp_path):
    for mode, channels in (("RGB", 3), ("L", 1)):
        quick = replace(RECIPE, training=replace(RECIPE.training, steps=1))
        trained(tmp_path / mode, quick, source=Squares(mode=mode))
        assert load_tokenizer(tmp_path / mode).channels == channels


def test_images_that_cannot_be_read_are_listed_and_the_others_learned(tmp_path):
    trained(tmp_path / "run", source=Squares(unreadable=[2, 5]))
    assert (tmp_path / "run" / "skipped.csv").read_text() == "path,reason\n2.png,truncated\n5.png,truncated\n"


def test_images_that_cannot_be_read_are_replaced_where_they_are_read_at_each_step(tmp_path, monkeypatch):
    monkeypatch.setattr(vq_data, "IN_MEMORY", 0)
    trained(tmp_path / "run", source=Squares(unreadable=[2, 5]), held_out=0)
    assert (tmp_path / "run" / "skipped.csv").read_text() == "path,reason\n2.png,truncated\n5.png,truncated\n"


def test_channels_that_a_picture_does_not_show_are_not_dropped_in_silence(tmp_path):
    source = open_source(write_bands(tmp_path / "bands", 6, 8))
    with pytest.raises(ValueError, match="have 4 channels, of which a picture shows 1: give --channels 4"):
        trained(tmp_path / "run", source=source)
    assert not (tmp_path / "run").exists()


def flat(folder):
    for i in range(6):
        np.save(folder / f"{i}.npy", np.full((8, 8, 2), 7, np.uint16))


def not_a_number(folder):
    for i in range(6):
        np.save(folder / f"{i}.npy", np.full((8, 8, 2), np.nan, np.float32))


def mixed(folder):
    write_bands(folder / "a", 3, 8, channels=2)
    write_bands(folder / "b", 3, 8, channels=4)


def wide(folder):
    for i in range(6):
        np.save(folder / f"{i}.npy", np.random.default_rng(i).uniform(0, 2, (8, 8, 2)).astype(np.float32))


@pytest.mark.parametrize(
    ("write", "images", "message"),
    [
        (flat, {"value_range": (0, 65535)}, "all of 6 images of .* are flat"),
        (not_a_number, {"value_range": (0, 1)}, "none of 6 images of .* could be read, .*not finite"),
        (mixed, {"value_range": (0, 65535)}, "have 2 and 4 channels: give images of one kind"),
        (wide, {"value_range": (0, 1)}, "outside the range from 0 to 1: .*--range"),
        (wide, {"channels": 2}, "range of the values .* is not known .*--range"),
        (mixed, {"channels": 4}, "2 channels, expected 4"),
    ],
    ids=["flat", "nan", "mixed", "outside", "no range", "other channels"],
)
def test_images_that_do_not_fit_are_one_sentence_and_nothing_is_written(tmp_path, write, images, message):
    folder = tmp_path / "images"
    folder.mkdir()
    write(folder)
    recipe = replace(RECIPE, images=replace(RECIPE.images, **images))
    with pytest.raises((ValueError, UnfitImage), match=message):
        trained(tmp_path / "run", recipe, source=open_source(folder), held_out=0)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: replace(RECIPE, images=ImagesConfig(size=(10, 8))), "10 x 8 pixels are not divisible by the stride"),
        (lambda: ImagesConfig(value_range=(1, 0)), "the smaller first"),
        (lambda: QuantizerConfig(kind="fsq"), "levels belongs to kind fsq"),
        (lambda: QuantizerConfig(kind="fsq", levels=(3, 3), vocab_size=8), "make 9 codes"),
        (lambda: LossConfig(l2=0), "both 0"),
        (lambda: PerceptualConfig(lpips="vgg.pth"), "needs loss.perceptual.network"),
        (lambda: OptimConfig(steps=0), "steps must be 1 or more"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        change()


@pytest.mark.parametrize("held_out", [0.001, 0.999])
def test_too_few_images_to_hold_out(tmp_path, held_out):
    with pytest.raises(ValueError, match="leaves none to train on, or none held out"):
        trained(tmp_path / "run", held_out=held_out)
    assert not (tmp_path / "run").exists()


def test_another_recipe_is_refused_in_the_same_directory(tmp_path):
    with pytest.raises(Gone):
        trained(tmp_path / "run", on_step=stop_at(4))
    with pytest.raises(ValueError, match=r"settings.recipe.loss.l2 1.0, not 2.0"):
        trained(tmp_path / "run", replace(RECIPE, loss=LossConfig(l2=2.0)))


def test_every_packaged_recipe_reads_and_is_changed_by_name():
    for name in ("tokenizer_tiny", "tokenizer_small", "tokenizer_vq16"):
        made = read_tokenizer_recipe(name, ["training.steps=7", "images.size=[32, 48]"])
        assert (made.training.steps, made.images.size) == (7, (32, 48))
        assert isinstance(made.build(3, None), LlamaGenVQ)


def test_fine_tuning_begins_with_the_given_weights(tmp_path):
    quick = replace(RECIPE, training=replace(RECIPE.training, steps=1, learning_rate=0.0, ema=0.0))
    trained(tmp_path / "grey", quick)
    first = load_tokenizer(tmp_path / "grey")
    trained(tmp_path / "again", quick, init=first)
    again = load_tokenizer(tmp_path / "again").state_dict()
    torch.testing.assert_close(again, first.state_dict())  # but for rounding in the lengths of codes
    trained(tmp_path / "colour", quick, init=first, source=Squares(mode="RGB"))
    colour = load_tokenizer(tmp_path / "colour")
    grey = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(colour.latents(grey.expand(-1, 3, -1, -1)), first.latents(grey), rtol=1e-4, atol=1e-5)


def test_patches_cannot_be_fine_tuned(tmp_path):
    from randfeat.tokenizers import PatchTokenizer

    with pytest.raises(ValueError, match="a patch tokenizer cannot be trained further"):
        train_tokenizer(RECIPE, Squares(), tmp_path / "run", init=PatchTokenizer(4, 4, 1))
