"""Zero-shot classification by likelihood for several numbers of orders, in one table with probes of the same model."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence

import numpy as np
import torch

from randfeat import weights
from randfeat.data.crop import images_of
from randfeat.data.errors import SkippedImage
from randfeat.data.reading import ReadBatches
from randfeat.data.sources import Source
from randfeat.inference import likelihood, successive_halving
from randfeat.inference.successive_halving import SuccessiveHalving
from randfeat.pipeline.pipeline import Pipeline
from randfeat.probes import FeatureSet, Labelled, Record, evaluate_likelihood
from randfeat.utils import progress

from ..options import list_skipped, load_model, short_name
from .inputs import given_names, open_data, part_of
from .options import protocol
from .tables import measure, split, write


def run(args: argparse.Namespace) -> int:
    """Classify the test images of DATA by likelihood, beside the probes of `--tasks`; return the exit code.

    Images that cannot be read are skipped, counted and listed, before others are split into train and test.
    """
    _check(args)
    (name,) = given_names([args.model], args)
    how = protocol(args, "classifying")
    model = load_model(args, args.seed)  # random weights as those of the probes beside it
    sources = open_data(args.data, args.split, args.labels, args.label_column)
    _, test = split(sources, args.data, args.tasks, args)
    class_names(model, test.labels)  # raises what is wrong before images are read
    source = sources[-1]
    if not isinstance(source, Source):
        raise ValueError(f"{source.name} holds tokens, and a likelihood is measured on images: give those")
    start = time.perf_counter()
    skipped: list[SkippedImage] = []
    tokens_of = read_tokens(model, source, part_of(source, args.group, args.data).paths.tolist(), skipped, args)
    train, test = split(sources, args.data, args.tasks, args, {one.path for one in skipped})
    tokens = torch.stack([tokens_of[path] for path in test.paths.tolist()])
    predicted = predict(model, tokens, class_names(model, test.labels), sorted(set(args.orders)), args)
    ends = [Labelled({}, part.labels, part.paths, part.groups) for part in (train, test)]
    prints = {"data": " ".join(one.fingerprint() for one in sources), "weights": weights.fingerprint(model.generator)}
    one = FeatureSet(name or short_name(args.model), *ends, fingerprints=prints)
    settings = {"orders": max(args.orders), "race": args.halving, "classes of the model": model.generator.num_classes}
    record: Record = evaluate_likelihood(one, predicted, how, settings, time.perf_counter() - start)
    record.save(args.out)
    if args.tasks:
        return measure([args.model], args.data, args.tasks, args, [record], skipped)
    write([record], args.out, args.data)
    return list_skipped(skipped, args.out)


def _check(args: argparse.Namespace) -> None:
    if args.online or args.recipe:
        raise ValueError("--online and --recipe are for `randfeat probe linear`: leave them out")
    if args.baselines and not args.tasks:
        raise ValueError("--baselines are for the probes of --tasks: name one")
    if min(args.orders) < 1:
        raise ValueError(f"a likelihood needs at least one order, got {min(args.orders)}: give 1 or more")
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ValueError("likelihoods are measured in one process: leave torchrun out")


def read_tokens(
    model: Pipeline,
    source: Source,
    paths: Sequence[str],
    skipped: list[SkippedImage],
    args: argparse.Namespace,
) -> dict[str, torch.Tensor]:
    """Return the tokens (N,) of images by their paths; those that cannot be read are added to `skipped`."""
    row_of = {path: row for row, path in enumerate(source.paths)}
    images = images_of(source, (row_of[path] for path in paths), model.tokenizer.value_range, skipping=True)
    reading = ReadBatches(images, args.batch_size, model.as_images, skipped.append)
    found: dict[str, torch.Tensor] = {}
    for pixels in reading:
        tokens = model.encode_pixels(pixels.to(model.generator.device)).cpu()
        found |= zip((paths[number] for number in reading.here), tokens, strict=True)
    return found


def predict(
    model: Pipeline, tokens: torch.Tensor, names_of_data: np.ndarray, counts: list[int], args: argparse.Namespace
) -> dict[int, np.ndarray]:
    """Return by number of orders the likeliest class of each image, by its name in the data: (runs, n).

    tokens: of the images, (n, N). names_of_data: of the classes of the model.
    """
    found: dict[int, list[np.ndarray]] = {count: [] for count in counts}
    with progress.bar(len(tokens), "classifying", "image", told="") as bar:
        for batch in tokens.split(args.batch_size):
            for count, columns in _columns(model, batch, counts, args).items():
                found[count].append(names_of_data[columns])
            bar.update(len(batch))
    return {count: np.concatenate(parts, 1) for count, parts in found.items()}


def _columns(
    model: Pipeline, tokens: torch.Tensor, counts: list[int], args: argparse.Namespace
) -> dict[int, np.ndarray]:
    """Return by number of orders the index of the best class of each image: (runs, n)."""
    network = model.inference_generator()
    if args.halving:
        halving = SuccessiveHalving()
        ranked = {k: successive_halving.rank_classes(network, tokens, None, k, halving, seed=args.seed) for k in counts}
        return {count: columns[:, 0].numpy()[None] for count, (_, columns, _) in ranked.items()}
    each = likelihood.class_log_prob(network, tokens, None, max(counts), seed=args.seed)
    best = {}
    for count in counts:
        runs = max(counts) // count if model.generator.many_orders else 1
        sets = each[..., : runs * count].unflatten(2, (runs, count)).mean(3)
        best[count] = sets.argmax(1).T.numpy()
    return best


def class_names(model: Pipeline, labels: np.ndarray) -> np.ndarray:
    """Return the data's name of each class of the model; the model's own name where the data has no such class."""
    if not model.classes.count:
        raise ValueError(
            "this model was trained without labels and cannot classify by likelihood: give one trained with labels"
        )
    names = [model.classes.short(index) for index in range(model.generator.num_classes)]
    for label in np.unique(labels).tolist():
        try:
            names[model.classes.index(label)] = str(label)
        except ValueError as error:
            raise ValueError(f"the class {label} of the data is none of the model's: {error}") from None
    return np.array(names)
