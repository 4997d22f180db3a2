"""Models of `studies.likelihood` beside the demo's: a raster-order control, and numbers 00 to 99.

    OMP_NUM_THREADS=1 python -m studies.likelihood.models digits_demo/models/randar --out DIR

DIR/raster     LlamaGen's network of the demo's size, with labels, in raster order. Its number of steps is chosen by
               its classification of held-out training writers, since RandAR's number would overfit it.
DIR/numbers    RandAR on two digits of one writer side by side: 100 classes, 4 x 8 tokens. Its writers are the first
               seven; the next two are for choices, the last five are test.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from randfeat.pretrain import PretrainConfig, Step, read_recipe, train
from torch import Tensor

from randfeat import Pipeline, load
from randfeat.data.builtin.digits import FIT, VALIDATION, Digits, load_digits, with_shifts
from randfeat.inference import likelihood
from randfeat.tokenizers import Tokenizer
from randfeat.utils import rng

STEPS = (400, 800, 1400)  # of the raster control
EACH = 24  # training numbers of each writer and class


def numbers(digits: Digits, writers: Sequence[int], each: int, seed: int = 0) -> Digits:
    """Return two-digit numbers, (n, 1, 8, 16) with labels 0 to 99, `each` for each writer and class.

    Both digits are by the same writer, drawn at random.
    """
    images, labels, of = [], [], []
    for writer in writers:
        for label in range(100):
            halves = []
            for place, digit in enumerate(divmod(label, 10)):
                rows = ((digits.writers == writer) & (digits.labels == digit)).nonzero()[:, 0]
                drawn = rng.uniform(rng.derive(seed, writer, label, place), each)
                halves.append(digits.images[rows[(drawn * len(rows)).long()]])
            images.append(torch.cat(halves, 3))
            labels += [label] * each
            of += [writer] * each
    return Digits(torch.cat(images), torch.tensor(labels), torch.tensor(of))


def fit(recipe: PretrainConfig, seen: Digits, tokenizer: Tokenizer, classes: int) -> Pipeline:
    tokens = tokenizer.encode(with_shifts(seen.images).flatten(0, 1))
    generator = recipe.build(tuple(tokens.shape[1:]), tokenizer.vocab_size, classes)
    crops = tokens.flatten(1).unflatten(0, (len(seen), -1))

    def report(done: Step) -> None:
        if done.step % 100 == 0:
            print(f"  step {done.step}: {done.loss:.3f} nats/token", flush=True)

    train(generator, crops, seen.labels, None, recipe.training, on_step=report)
    return Pipeline(tokenizer, generator)


def raster_recipe(steps: int) -> PretrainConfig:
    recipe = read_recipe("digits_randar")
    return replace(recipe, model="llamagen", training=replace(recipe.training, steps=steps, order="raster"))


def numbers_recipe(steps: int) -> PretrainConfig:
    recipe = read_recipe("digits_randar")
    size = replace(recipe.size, embed_dim=48, depth=3, ffn_dim=128, dropout=0.1)
    return replace(recipe, size=size, training=replace(recipe.training, steps=steps))


def accuracy(model: Pipeline, of: Digits) -> float:
    tokens: Tensor = model.encode(of.images)
    scores = likelihood.class_log_prob(model.inference_generator(), tokens)[..., 0]
    return float((scores.argmax(1) == of.labels).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="the demo's RandAR with labels, whose tokenizer is used")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", choices=("raster", "numbers"), help="one of them")
    parser.add_argument("--steps", type=int, default=2500, help="training steps of the model of numbers")
    args = parser.parse_args()
    tokenizer, digits = load(args.model).tokenizer, load_digits()
    if args.only != "numbers":
        held_out, found = digits.written_by(VALIDATION), {}
        for steps in STEPS:
            found[steps] = accuracy(fit(raster_recipe(steps), digits.written_by(FIT), tokenizer, 10), held_out)
            print(f"raster, {steps} steps: {found[steps]:.4f} of held-out writers right", flush=True)
        steps = max(found, key=lambda count: found[count])
        made = fit(raster_recipe(steps), digits.written_by(FIT, VALIDATION), tokenizer, 10)
        made.training_record = {"steps": steps, "held_out": {str(count): value for count, value in found.items()}}
        made.save(args.out / "raster")
    if args.only != "raster":
        made = fit(numbers_recipe(args.steps), numbers(digits, FIT, EACH), tokenizer, 100)
        made = Pipeline(tokenizer, made.generator, [f"{label:02}" for label in range(100)], {"steps": args.steps})
        made.save(args.out / "numbers")
        print(f"numbers: {accuracy(made, numbers(digits, VALIDATION, 2, seed=1)):.4f} of held-out writers right")


if __name__ == "__main__":
    main()
