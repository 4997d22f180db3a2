"""Models through images with label maps, each with a record."""

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
from randfeat.utils import devices, distributed, progress

from .baselines import dense_noise, dense_of, dense_references
from .inputs import names, open_contender
from .pictures import Reader
from .placing import Place, region
from .tables import random_weights, write


def measure(args: argparse.Namespace) -> None:
    """Every model on the same pixels of the same images; what is written lies in `args.out`."""
    parts, root = folders(args), Path(args.data)
    sources = [FileSource(args.data, root, [p.relative_to(root).as_posix() for p in part.images]) for part in parts]
    with distributed.ended_by_sigterm(), distributed.group():
        contenders = [open_contender(text, sources, args.spec, args, dense=True) for text in args.what]
        fresh = random_weights(contenders, sources, args.spec, args, dense=True) if args.baselines else []
        if distributed.rank() > 0:  # it has read its share
            return
    everyone = [*contenders, *fresh]
    entries = [dense_of(one, name) for one, name in zip(everyone, names(everyone), strict=True)]
    if args.baselines:
        entries += dense_references([Reader(source, source.paths) for source in sources], contenders)
    entries.append(dense_noise(entries[0], args.seed))
    how = Protocol(
        seed=args.seed,
        draws=args.draws,
        held_out=args.held_out,
        search=not args.no_search,
        device=str(devices.pick(args.device)),
    )
    places, records = [entry.place for entry in entries], []
    prints = {"data": " ".join(source.fingerprint() for source in sources)}
    with progress.bar(len(entries), "measuring", "probe") as bar:
        for number, entry in enumerate(entries):
            shown = Shown(parts[0], entry.place), Shown(parts[1], entry.place, places)  # all are scored on what all see
            ends = [
                SegmentationData(x, maps, source.paths)
                for x, maps, source in zip(entry.parts, shown, sources, strict=True)
            ]
            own = dict(prints)
            if number < len(everyone):
                one = everyone[number]
                own["features"] = " ".join(store.fingerprint(spec) for store in one.stores for spec in one.specs)
            settings = {"baseline": number >= len(contenders)}
            record = evaluate_segmentation(entry.name, *ends, parts[1].ignore, how, settings, own)
            record.save(args.out)
            records.append(record)
            bar.update()
    write(records, args.out, args.data)


def folders(args: argparse.Namespace) -> list[LabelledFolder]:
    """Train and test, in the layout that DATA has."""
    root = Path(args.data)
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root}: check the path")
    if (args.images is None) != (args.maps is None) or (args.images and args.split):
        raise ValueError("--images and --maps go together, and say what is train and test: leave --split out")
    if args.images:
        ignore = 255 if args.ignore is None else args.ignore
        return [
            paired_maps(root / images, root / maps, ignore) for images, maps in zip(args.images, args.maps, strict=True)
        ]
    if args.ignore is not None:
        raise ValueError("--ignore is for --maps: 255 means none in Pascal VOC's layout, 0 in ADE20K's")
    ade = (root / "annotations").is_dir()
    return [
        label_maps(root, split) for split in args.split or (("training", "validation") if ade else ("train", "val"))
    ]


class Shown(Sequence[np.ndarray]):
    """The label maps of the part of each picture that a model sees; read anew each time, so that none is kept.

    common: places of several models. What one of them does not see is labelled as `ignore` says.
    """

    def __init__(self, part: LabelledFolder, place: Place, common: Sequence[Place] = ()) -> None:
        self.part, self.place, self.common = part, place, common

    def __len__(self) -> int:
        return len(self.part.maps)

    def __getitem__(self, i: Any) -> Any:
        labels = read_label_map(self.part.maps[i])
        size = labels.shape[1], labels.shape[0]
        boxes = [_whole_pixels(region(place, size), size) for place in self.common]
        if boxes:
            left, top, right, bottom = (
                end(sides) for end, sides in zip((max, max, min, min), zip(*boxes, strict=True), strict=True)
            )
            kept = np.full_like(labels, self.part.ignore)
            kept[top:bottom, left:right] = labels[top:bottom, left:right]
            labels = kept
        left, top, right, bottom = _whole_pixels(region(self.place, size), size)
        return labels[top:bottom, left:right]


def _whole_pixels(box: tuple[float, ...], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the nearest box of one pixel or more."""
    left, top = (min(round(edge), side - 1) for edge, side in zip(box[:2], size, strict=True))
    return left, top, max(left + 1, round(box[2])), max(top + 1, round(box[3]))
