"""Measure features: choose on held-out images of train, score test once, and leave a record.

The features are those of a store that `randfeat extract` wrote, or of MODEL on the images of DATA, extracted into a
store below DIR first; the same MODEL, feature spec and DATA are extracted once only. MODEL is what randfeat.load takes,
timm:NAME or timm:NAME@CHECKPOINT (timm:NAME?img_size=224,crop_pct=0.875 at another size than timm's), or random:MODEL,
the same network with random weights.

  randfeat probe knn STORE -o DIR                           one store, a share of it is test
  randfeat probe knn --train STORE --test STORE -o DIR      two stores
  randfeat probe knn MODEL DATA -o DIR                      DATA with splits, or a share of it is test
  randfeat probe compare A B C --data DATA -o DIR           several, each a MODEL or a store, in one table

DIR then holds, for each evaluation, a record (.json) with the scores of every image (.npz), and

  results.csv     a row for each record
  table.md        the tables, with 95 % intervals, and the paired differences with Holm's correction
  report.html     the same as a page with plots and pictures, which lie in plots/ as well

examples:
  randfeat probe all digits_demo/models/randar_free digits_demo/digits --group writer --baselines -o measured
  randfeat probe compare arpg-l timm:vit_base_patch16_224.mae random:arpg-l --data photos -o compared
  randfeat probe likelihood digits_demo/models/randar digits_demo/digits --group writer --orders 1 4 16 -o likelihood
  randfeat probe retrieval arpg-l CUB_200_2011 --protocol cub -o birds
  randfeat probe correspondence arpg-l SPair-71k -o matched
  randfeat probe segmentation arpg-l VOC2012 --spec raster/full/query/L-1/none/mean/shifts2 --baselines -o segmented

calibrations, where ImageNet lies in `imagenet`: each should give the published number within 0.3 points,
see docs/guides/measure.md
  DINOv2-B, k-NN 82.1     randfeat probe knn 'timm:vit_base_patch14_dinov2?img_size=224,crop_pct=0.875' imagenet
                            --no-search -o dinov2
  DINOv2-B, linear 84.5   the same with linear --recipe dinov2 --online --held-out 0.02
                            --spec pooled L-1/cls L-4,L-3,L-2,L-1/cls/concat
  MAE-B, linear 68.0      randfeat probe linear timm:vit_base_patch16_224.mae imagenet --recipe mae --online --no-search
                            -o mae

`randfeat probe PROBE --help` has the options of each.

Images that cannot be read are skipped, counted and listed in DIR/skipped.csv. The published benchmarks (SPair-71k, VOC,
CUB, Oxford, ...) need all of theirs, and stop with the path of one that cannot be read.

exit code: 0 if all images were read, 3 if some were skipped, 1 after an error, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module
from typing import NamedTuple

from ..options import add_action
from . import options

HOW_TO_RESUME = "Run the same command again: features that were extracted are kept."


class Probe(NamedTuple):
    """One probe of the command. module: the one here that runs it, imported after the arguments are read."""

    module: str
    add_arguments: Callable[[argparse.ArgumentParser, str], None]
    summary: str


PROBES = {
    "knn": Probe(
        "classify",
        options.add_classify,
        "nearest neighbours: k = 20 as DINO has it, fixed in advance, and k, metric, scaling chosen on train",
    ),
    "linear": Probe(
        "classify",
        options.add_classify,
        "logistic regression with C, scaling and components chosen on train, or a published recipe",
    ),
    "attentive": Probe("classify", options.add_classify, "AIM's attentive head on dense features (pool none)"),
    "fewshot": Probe(
        "classify", options.add_classify, "logistic regression on a few images of each class, drawn many times"
    ),
    "retrieval": Probe(
        "retrieval",
        options.add_retrieval,
        "each test image among the others: MAP@R, P@1, Recall@k; or as CUB, Cars, SOP, revisited Oxford and Paris do",
    ),
    "cluster": Probe("classify", options.add_classify, "spherical k-means: accuracy, NMI, adjusted Rand index"),
    "correspondence": Probe(
        "correspondence", options.add_correspondence, "PCK on image pairs with the layout of SPair-71k (pool none)"
    ),
    "segmentation": Probe(
        "segmentation",
        options.add_segmentation,
        "mIoU of a linear layer on dense features, in layouts like Pascal VOC's and ADE20K's",
    ),
    "likelihood": Probe(
        "likelihood",
        options.add_likelihood,
        "no training: the class that makes an image likeliest, for models with labels; beside k-NN and linear",
    ),
    "all": Probe("classify", options.add_classify, "knn, linear, fewshot, retrieval and cluster, in one table each"),
    "sweep": Probe(
        "sweep",
        options.add_sweep,
        "all feature specs of one model: order x context x stream x layer x pool, ranked on train",
    ),
    "compare": Probe(
        "classify",
        options.add_compare,
        "several models and stores on the same images: one table, paired differences",
    ),
}


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """Add a subparser for each probe."""
    probes = parser.add_subparsers(dest="probe", metavar="PROBE", required=True)
    for task, probe in PROBES.items():
        probe.add_arguments(add_action(probes, task, probe.summary, f"{task}: {probe.summary}"), task)


def run(args: argparse.Namespace) -> int | None:
    """Run one probe; its module has `run(args)`."""
    from randfeat.utils import progress

    with progress.warnings_as_lines():
        return import_module(f".{PROBES[args.probe].module}", __package__).run(args)
