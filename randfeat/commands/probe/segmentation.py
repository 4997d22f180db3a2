"""Linear segmentation of models on images with label maps, each with a record."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from randfeat.data.sources.folder import FileSource
from randfeat.probes import (
    LabelledFolder,
    Protocol,
    SegmentationData,
    evaluate_segmentation,
    label_maps,
    paired_maps,
    read_label_map,
)
from randfeat.utils import distributed, progress

from ..options import pick_device
from .baselines import dense_baselines, dense_features, dense_noise, random_weights
from .inputs import display_names, given_names, open_all
from .pictures import PictureReader, Place, visible_box
from .tables import write


def run(args: argparse.Namespace) -> None:
    """Measure every model on the same pixels of the same images, and write records and table into `args.out`."""
    given_names(args.what, args)
    parts, root = folders(args), Path(args.data)
    sources = [FileSource(args.data, root, [p.relative_to(root).as_posix() for p in part.images]) for part in parts]
    with distributed.ended_by_sigterm(), distributed.group():
        models = open_all(args.what, sources, args, dense=True)
        fresh = random_weights(models, sources, args.spec, args, dense=True) if args.baselines else []
        if distributed.rank() > 0:  # only extraction is shared among processes
            return
    everyone = [*models, *fresh]
    entries = [dense_features(one, name) for one, name in zip(everyone, display_names(everyone), strict=True)]
    if args.baselines:
        entries += dense_baselines([PictureReader(source, source.paths) for source in sources], models)
    entries.append(dense_noise(entries[0], args.seed))
    how = Protocol(
        seed=args.seed,
        draws=args.resamples,
        held_out=args.held_out,
        search=not args.no_search,
        device=str(pick_device(args)),
    )
    places, records = [entry.place for entry in entries], []
    prints = {"data": " ".join(source.fingerprint() for source in sources)}
    with progress.bar(len(entries), "measuring", "probe") as bar:
        for number, entry in enumerate(entries):
            maps = CroppedLabelMaps(parts[0], entry.place), CroppedLabelMaps(parts[1], entry.place, places)
            ends = [
                SegmentationData(x, part, source.paths)
                for x, part, source in zip(entry.parts, maps, sources, strict=True)
            ]
            own = dict(prints)
            if number < len(everyone):
                one = everyone[number]
                own["features"] = " ".join(store.fingerprint(spec) for store in one.stores for spec in one.specs)
            settings = {"baseline": number >= len(models)}
            record = evaluate_segmentation(entry.name, *ends, parts[1].ignore, how, settings, own)
            record.save(args.out)
            records.append(record)
            bar.update()
    write(records, args.out, args.data)


def folders(args: argparse.Namespace) -> list[LabelledFolder]:
    """Return train and test, in the layout that DATA has."""
    root = Path(args.data)
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root}: check the path")
    if (args.images is None) != (args.label_maps is None) or (args.images and args.split):
        raise ValueError("--images and --label-maps go together, and say what is train and test: leave --split out")
    if args.images:
        ignore = 255 if args.ignore_label is None else args.ignore_label
        return [
            paired_maps(root / images, root / maps, ignore)
            for images, maps in zip(args.images, args.label_maps, strict=True)
        ]
    if args.ignore_label is not None:
        raise ValueError("--ignore-label is for --label-maps: 255 means none in Pascal VOC's layout, 0 in ADE20K's")
    ade = (root / "annotations").is_dir()
    return [
        label_maps(root, split) for split in args.split or (("training", "validation") if ade else ("train", "val"))
    ]


class CroppedLabelMaps(Sequence[np.ndarray]):
    """Label maps of the part of each picture that a model sees, read anew each time, so that none stays in memory.

    common: placements of all models of a table. Pixels that one of them does not see are labelled `part.ignore`, so
    that all are scored on the same pixels.
    """

    def __init__(self, part: LabelledFolder, place: Place, common: Sequence[Place] = ()) -> None:
        self.part, self.place, self.common = part, place, common

    def __len__(self) -> int:
        return len(self.part.maps)

    def __getitem__(self, i: Any) -> Any:
        labels = read_label_map(self.part.maps[i])
        size = labels.shape[1], labels.shape[0]
        boxes = [_pixel_box(visible_box(place, size), size) for place in self.common]
        if boxes:
            left, top, right, bottom = (
                end(sides) for end, sides in zip((max, max, min, min), zip(*boxes, strict=True), strict=True)
            )
            kept = np.full_like(labels, self.part.ignore)
            kept[top:bottom, left:right] = labels[top:bottom, left:right]
            labels = kept
        left, top, right, bottom = _pixel_box(visible_box(self.place, size), size)
        return labels[top:bottom, left:right]


def _pixel_box(box: tuple[float, ...], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the nearest box of whole pixels, one or more on each side."""
    left, top = (min(round(edge), side - 1) for edge, side in zip(box[:2], size, strict=True))
    return left, top, max(left + 1, round(box[2])), max(top + 1, round(box[3]))
