"""Retrieval by published protocols: metric learning (CUB, Cars, SOP) and revisited Oxford and Paris."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from randfeat.data.decode import open_picture, picture_values
from randfeat.data.sources import Source
from randfeat.data.sources.base import size_of
from randfeat.data.sources.folder import FileSource, walk
from randfeat.probes import (
    FeatureSet,
    GroundTruth,
    LabelledList,
    Protocol,
    Record,
    RevisitedQuery,
    evaluate_metric_learning,
    evaluate_revisited,
    noise,
    read_cars,
    read_cub,
    read_ground_truth,
    read_sop,
    retrieval_scores,
    second_half,
)
from randfeat.probes.tasks.metric_learning import RECALLS
from randfeat.utils import distributed, progress

from . import classify
from .baselines import random_weights, vector_baselines
from .inputs import (
    Part,
    ProbedModel,
    Sources,
    check_complete,
    display_names,
    family_of,
    feature_set,
    open_all,
    open_stored,
    part_of,
)
from .options import protocol
from .pictures import feature_charts, picture_lookup
from .tables import write

GROUND_TRUTH = {"roxford": "gnd_roxford5k.pkl", "rparis": "gnd_rparis6k.pkl"}
PICTURES = "jpg"  # folder of revisited Oxford and Paris, beside the ground truth
UNUSED = ("train", "test", "split", "test_share", "labels", "label_column", "group", "recipe", "online")


def run(args: argparse.Namespace) -> int:
    """Score retrieval among labelled images, or by a published protocol."""
    if args.protocol is None:
        if args.distractors is not None:
            raise ValueError("--distractors are for --protocol roxford and rparis: leave them out")
        return classify.run(args)
    _check(args)
    if args.protocol in GROUND_TRUTH:
        _run_revisited(args.what[:-1], Path(args.what[-1]), args)
    else:
        _run_metric_learning(args.what[:-1], Path(args.what[-1]), args)
    return 0


def _check(args: argparse.Namespace) -> None:
    if given := next((name for name in UNUSED if getattr(args, name)), None):
        raise ValueError(f"--protocol decides what is scored: leave --{given.replace('_', '-')} out")
    if len(args.what) < 2:
        raise ValueError(f"--protocol {args.protocol} needs a MODEL, or several, and DATA, the data set's folder")
    if stored := next((text for text in args.what[:-1] if open_stored(text, ()) is not None), None):
        raise ValueError(f"{stored} is a feature store, and --protocol extracts its own features: give the MODEL")
    if args.protocol in GROUND_TRUTH:
        if any(count > 1 for count in Counter(map(family_of, args.spec)).values()):
            raise ValueError(f"{args.protocol} has no images of train to choose among specs: give one --spec")
    elif args.distractors is not None:
        raise ValueError("--distractors are for --protocol roxford and rparis: leave them out")


# metric learning ----------------------------------------------------------------------------------------------------


def _run_metric_learning(texts: Sequence[str], root: Path, args: argparse.Namespace) -> None:
    """Search each image of the test classes among all others of these, by every model and baseline.

    The classes of train are read only where something is chosen or fitted on them: feature specs, or baselines.
    """
    with_train = (len(args.spec) > 1 and not args.no_search) or args.baselines
    lists = labelled_lists(args.protocol, root)
    sources = [_file_source(root, part) for part in (lists if with_train else lists[1:])]
    test = part_of(sources[-1], None)
    train = part_of(sources[0], None) if with_train else test[np.zeros(len(test), dtype=bool)]
    sets, models = _feature_sets(texts, sources, train, test, args)
    if sets is None:
        return
    how, records = protocol(args), []
    with progress.bar(len(sets), "measuring", "probe") as bar:
        for one in sets:
            record = _metric_learning_record(one, args.protocol, how)
            record.save(args.out)
            records.append(record)
            bar.update()
    pictures = picture_lookup(sources[-1:])
    charts = feature_charts(models, display_names(models), test, pictures)
    write(records, args.out, str(root), pictures, charts)


def labelled_lists(name: str, root: Path) -> tuple[LabelledList, LabelledList]:
    """Return the published images of train and of test. name: "cub", "cars" or "sop". root: the data set's folder."""
    if name == "sop":
        return read_sop(root, "train"), read_sop(root, "test")
    images = (read_cub if name == "cub" else read_cars)(root)
    test = second_half(images.labels)
    train, scored = (
        LabelledList(tuple(images.paths[row] for row in np.flatnonzero(mask)), images.labels[mask])
        for mask in (~test, test)
    )
    return train, scored


def _file_source(root: Path, images: LabelledList) -> FileSource:
    files = [path.relative_to(root).as_posix() for path in images.paths]
    return FileSource(str(root), root, files, images.labels.tolist())


def _metric_learning_record(one: FeatureSet, name: str, how: Protocol) -> Record:
    """Return the record of one feature set, whose feature spec is chosen by Recall@1 among the images of train."""
    specs, ks, search = list(one.test.features), RECALLS[name], {}
    if len(specs) > 1 and len(one.train) and how.search:
        search = {
            spec: float(retrieval_scores(one.train.features[spec], one.train.labels, ks=ks[:1])["recall_at_1"].mean())
            for spec in specs
        }
    chosen = max(search, key=lambda spec: search[spec]) if search else specs[0]
    features, settings = one.test.features[chosen], {"protocol": name, "baseline": one.baseline}
    found = evaluate_metric_learning(
        one.name, features, one.test.labels, one.test.paths.tolist(), ks, how, settings, one.fingerprints
    )
    return replace(found, chosen=chosen, search=search)


# revisited Oxford and Paris -----------------------------------------------------------------------------------------


class QuerySource(Source):
    """Query images of revisited Oxford or Paris, each cropped to its box; the paths name the boxes."""

    def __init__(self, root: Path, queries: Sequence[RevisitedQuery]) -> None:
        self.root, self.queries = str(root), queries
        boxes = [" ".join(f"{edge:g}" for edge in query.box) for query in queries]
        super().__init__(
            self.root, [f"{PICTURES}/{query.name}.jpg {box}" for query, box in zip(queries, boxes, strict=True)]
        )

    def read(self, i: int) -> Image.Image:
        return self.queries[i].crop(open_picture(self._file(i)))

    def values(self, i: int) -> np.ndarray:
        return picture_values(self.read(i))

    def sizes(self) -> Iterable[int]:
        return (size_of(self._file(i)) for i in range(len(self)))

    def _file(self, i: int) -> Path:
        return Path(self.root, PICTURES, f"{self.queries[i].name}.jpg")


def _run_revisited(texts: Sequence[str], root: Path, args: argparse.Namespace) -> None:
    """Search every cropped query in the gallery, by every model and baseline."""
    truth = ground_truth(args.protocol, root)
    files = [f"{PICTURES}/{name}.jpg" for name in truth.gallery]
    if args.distractors is not None:
        files += [str(args.distractors.resolve() / file) for file in _distractors(args.distractors)]
    sources = [FileSource(str(root), root, files), QuerySource(root, truth.queries)]
    gallery, queries = (Part(np.array(source.paths), np.arange(len(source)), None) for source in sources)
    sets, models = _feature_sets(texts, sources, gallery, queries, args)
    if sets is None:
        return
    how, records = protocol(args), []
    with progress.bar(len(sets), "measuring", "probe") as bar:
        for one in sets:
            spec = next(iter(one.test.features))
            ends, settings = (one.test.features[spec], one.train.features[spec]), {"protocol": args.protocol}
            settings |= {"baseline": one.baseline}
            record = evaluate_revisited(
                one.name, *ends, truth, how=how, settings=settings, fingerprints=one.fingerprints
            )
            record = replace(record, chosen=spec)
            record.save(args.out)
            records.append(record)
            bar.update()
    pictures = picture_lookup(sources)
    charts = feature_charts(models, display_names(models), queries, pictures)
    write(records, args.out, str(root), pictures, charts)


def ground_truth(name: str, root: Path) -> GroundTruth:
    """Return the published ground truth. name: "roxford" or "rparis". root: the folder that holds it."""
    file = root / GROUND_TRUTH[name]
    if not file.is_file():
        raise FileNotFoundError(f"there is no {file}: give the folder that holds {file.name} and {PICTURES}/")
    return read_ground_truth(file)


def _distractors(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}: check the path of --distractors")
    if not (files := walk(folder)):
        raise ValueError(f"{folder} holds no images: give a folder with distractors")
    return files


# features -----------------------------------------------------------------------------------------------------------


def _feature_sets(
    texts: Sequence[str], sources: Sources, train: Part, test: Part, args: argparse.Namespace
) -> tuple[list[FeatureSet] | None, list[ProbedModel]]:
    """Return the features of models, baselines and chance; None in a process that has only extracted its share."""
    with distributed.ended_by_sigterm(), distributed.group():
        models = open_all(texts, sources, args)
        fresh = random_weights(models, sources, args.spec, args, False) if args.baselines else []
        if distributed.rank() > 0:
            return None, models
    everyone = [*models, *fresh]
    for model in everyone:
        check_complete(model)
    sets = [
        feature_set(model, train, test, name, model in fresh)
        for model, name in zip(everyone, display_names(everyone), strict=True)
    ]
    if args.baselines:
        sets += vector_baselines(sources, train, test, models)
    return [*sets, noise(sets[0], args.seed)], models
