"""Arguments of every probe. They lie in one file so that help imports no heavy library."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from .. import options as shared

if TYPE_CHECKING:
    from randfeat.probes import Protocol

RECIPES = ("mae", "dinov2", "capi")
VECTOR_TASKS = ("knn", "linear", "fewshot", "retrieval", "cluster")
PROTOCOLS = ("cub", "cars", "sop", "roxford", "rparis")  # of retrieval
SWEEP_TASKS = ("knn", "linear")
AXES = {  # of a sweep: option -> default, help; a model is read in every combination that it supports
    "orders": (("raster", "raster+reversed", "random*4"), "orders of the passes"),
    "contexts": (("causal", "echo", "full", "after", "bare"), "what a token may attend to"),
    "streams": (("token", "query"), "whose hidden states are read"),
    "layers": ((*(f"L{k / 8:g}" for k in range(1, 8)), "L-1"), "blocks, as numbers or shares of the depth"),
    "pools": (("mean", "grid2"), "how positions become one vector (for timm's models also cls)"),
    "merges": (("mean",), "how passes become one vector"),
    "shifts": (("1",), "sub-patch shifts a side (see shifts in a spec)"),
}


# groups that several probes share ------------------------------------------------------------------------------------


def add_specs(parser: argparse.ArgumentParser) -> None:
    """Add the feature specs of probes on vectors."""
    shared.add_spec(
        parser,
        "feature specs of the models, see `randfeat extract --help`; of several, the best is chosen on train. Specs "
        "like `pooled` and `L6/mean` are for models of timm, the others for randfeat's",
    )


def _add_dense_specs(parser: argparse.ArgumentParser, chosen_on: str) -> None:
    shared.add_spec(parser, f"feature specs with the pool `none`; of several, the best is chosen on {chosen_on}")


def add_images(parser: argparse.ArgumentParser) -> None:
    """Add what decides which images are read, and which of them are test."""
    images = parser.add_argument_group("images")
    images.add_argument(
        "--split",
        nargs=2,
        metavar=("TRAIN", "TEST"),
        help="parts of DATA (train, and test or else val, where it has such parts); each may be several, as in "
        "train,val, or all; the same for both: one part, of which a share is test",
    )
    images.add_argument(
        "--test-share",
        type=float,
        metavar="X",
        help="share of the images that is test, where DATA has no parts (0.3; of retrieval or cluster alone 1)",
    )
    shared.add_labels(images)
    images.add_argument(
        "--group",
        metavar="COLUMN",
        help="images that belong together (writer, patient, photograph) and are never split, neither for a choice nor "
        "by a resample: a column of the list that DATA is, or `parent`, the folder of each image",
    )


def add_protocol(parser: argparse.ArgumentParser) -> None:
    """Add how features are scored."""
    how = parser.add_argument_group("measurement")
    how.add_argument(
        "--baselines",
        action="store_true",
        help="add pixels, recentred pixels, PCA, HOG, colours, patches, tokens, random weights, RBF-SVM, "
        "each with the same search",
    )
    how.add_argument("--no-search", action="store_true", help="take the first candidate of each search, to calibrate")
    how.add_argument("--recipe", choices=RECIPES, help="train linear probes as published, in place of L-BFGS")
    how.add_argument(
        "--online",
        action="store_true",
        help="train linear probes by a recipe on random crops, read anew in every epoch, as the published ones were",
    )
    _add_held_out(how)
    how.add_argument("--shots", type=int, default=5, metavar="N", help="images of each class of fewshot (5)")
    shared.add_seed(how, "splits, draws and random weights")
    _add_resamples(how)


def _add_held_out(parser: shared.Flags) -> None:
    parser.add_argument("--held-out", type=float, default=0.2, metavar="X", help="share of train to choose on (0.2)")


def _add_resamples(parser: shared.Flags) -> None:
    parser.add_argument("--resamples", type=int, default=2000, metavar="N", help="of the bootstrap intervals (2000)")


def add_machine(parser: argparse.ArgumentParser) -> None:
    """Add where things are written, the names of models there, and what computes."""
    shared.add_out(parser)
    shared.add_name(parser, "each model in tables and on the page", nargs="+")
    machine = shared.machine(parser)
    machine.add_argument("--stores", type=Path, metavar="DIR", help="where features are kept (DIR/stores)")
    shared.add_batch_size(machine)
    shared.add_workers(machine)
    shared.add_device(machine)
    shared.add_dtype(machine, "the networks")


# arguments of each probe ---------------------------------------------------------------------------------------------


def add_classify(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the arguments of knn, linear, attentive, fewshot, cluster and all."""
    parser.usage = f"randfeat probe {name} (STORE | MODEL DATA | --train STORE --test STORE) -o DIR [options]"
    parser.add_argument("what", nargs="*", metavar="STORE | MODEL DATA", help="a feature store, or a model and images")
    parser.add_argument("--train", metavar="STORE", help="features to fit and to choose on")
    parser.add_argument("--test", metavar="STORE", help="features to score, once")
    add_specs(parser)
    add_images(parser)
    add_protocol(parser)
    add_machine(parser)


def add_retrieval(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the arguments of retrieval: those of `add_classify`, and the published protocols."""
    add_classify(parser, name)
    parser.usage = (
        f"randfeat probe {name} (STORE | MODEL DATA | --train STORE --test STORE) -o DIR [options]\n"
        f"       randfeat probe {name} MODEL [MODEL ...] DATA --protocol NAME -o DIR [options]"
    )
    published = parser.add_argument_group(
        "published protocols",
        "DATA is the data set's folder as published. --spec, --baselines, --no-search, --seed and --resamples apply.\n"
        "  cub, cars, sop    each image of the test classes (of cub and cars the second half) is searched among\n"
        "                    all others of these: Recall@1, 2, 4, 8, of sop @1, 10, 100, 1000; of several specs the\n"
        "                    best on the train classes is chosen. Folders: CUB_200_2011, the one with cars_annos.mat\n"
        "                    and car_ims, Stanford_Online_Products\n"
        "  roxford, rparis   queries, cropped to their boxes, are searched in the gallery: mAP and mP@1, 5, 10 in\n"
        "                    the setups Easy, Medium and Hard. Folders: the one with gnd_roxford5k.pkl or\n"
        "                    gnd_rparis6k.pkl, and jpg",
    )
    published.add_argument("--protocol", choices=PROTOCOLS, help=f"of {', '.join(PROTOCOLS)}")
    published.add_argument(
        "--distractors", type=Path, metavar="DIR", help="further images in the gallery of roxford or rparis"
    )


def add_compare(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the arguments of compare."""
    parser.usage = f"randfeat probe {name} A B ... --data DATA -o DIR [options]"
    parser.add_argument(
        "what", nargs="+", metavar="A", help="a MODEL; timm:NAME; random:MODEL; a store, or two as TRAIN,TEST"
    )
    parser.add_argument("--data", help="the images that all of them read (not needed for stores alone)")
    parser.add_argument(
        "--tasks",
        nargs="+",
        choices=(*VECTOR_TASKS, "attentive"),
        default=list(VECTOR_TASKS),
        metavar="TASK",
        help=f"of {', '.join(VECTOR_TASKS)} (all of these), attentive",
    )
    add_specs(parser)
    add_images(parser)
    add_protocol(parser)
    add_machine(parser)


def add_correspondence(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the arguments of correspondence."""
    parser.usage = f"randfeat probe {name} MODEL [MODEL ...] SPAIR -o DIR [options]"
    parser.add_argument(
        "what", nargs="+", metavar="MODEL", help="models that give dense maps, see `randfeat probe --help`"
    )
    parser.add_argument("data", metavar="SPAIR", help="the folder with JPEGImages and PairAnnotation")
    _add_dense_specs(parser, "the pairs of --validation")
    parser.add_argument("--test", default="test", metavar="PART", help="pairs that are scored (test)")
    parser.add_argument("--validation", default="val", metavar="PART", help="pairs that choose among specs (val)")
    parser.add_argument("--alphas", nargs="+", type=float, default=[0.1, 0.05], metavar="X", help="of PCK (0.1 0.05)")
    parser.add_argument("--upsample", type=int, default=1, metavar="N", help="enlarge maps N times before matching (1)")
    parser.add_argument(
        "--baselines", action="store_true", help="add pixels, edges, colours, tokens, the same place and random weights"
    )
    shared.add_seed(parser, "random weights and draws")
    _add_resamples(parser)
    add_machine(parser)


def add_segmentation(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the arguments of segmentation."""
    parser.usage = f"randfeat probe {name} MODEL [MODEL ...] DATA -o DIR [options]"
    parser.add_argument(
        "what", nargs="+", metavar="MODEL", help="models that give dense maps, see `randfeat probe --help`"
    )
    parser.add_argument(
        "data",
        metavar="DATA",
        help="a folder with the layout of Pascal VOC (JPEGImages, SegmentationClass, ImageSets/Segmentation) or of "
        "ADE20K (images/training, annotations/training), or the one that --images and --label-maps are in",
    )
    _add_dense_specs(parser, "train")
    parser.add_argument(
        "--split", nargs=2, metavar=("TRAIN", "TEST"), help="parts of DATA (train val, of ADE20K training validation)"
    )
    parser.add_argument(
        "--images", nargs=2, metavar=("TRAIN", "TEST"), help="folders of images in DATA, where it has another layout"
    )
    parser.add_argument(
        "--label-maps", nargs=2, metavar=("TRAIN", "TEST"), help="their label maps: PNG files of the same names"
    )
    parser.add_argument("--ignore-label", type=int, metavar="N", help="pixels of --label-maps to leave out (255)")
    parser.add_argument(
        "--baselines", action="store_true", help="add pixels, edges, colours, tokens, the place and random weights"
    )
    parser.add_argument("--no-search", action="store_true", help="take the first learning rate, without a choice")
    _add_held_out(parser)
    shared.add_seed(parser, "splits, training and draws")
    _add_resamples(parser)
    add_machine(parser)


def add_likelihood(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the arguments of likelihood."""
    parser.usage = f"randfeat probe {name} MODEL DATA [--orders K ...] [--halving] -o DIR [options]"
    shared.add_model(parser, "a model that was trained with labels")
    shared.add_data(parser, "images whose classes have the names of the model's")
    parser.add_argument(
        "--orders",
        nargs="+",
        type=int,
        default=[1, 4, 16],
        metavar="K",
        help="numbers of orders that log p is averaged over (1 4 16). The largest number holds several sets of a "
        "smaller one, whose score is their mean",
    )
    parser.add_argument(
        "--halving", action="store_true", help="read only the leading classes to the end (successive halving)"
    )
    parser.add_argument(
        "--tasks",
        nargs="*",
        choices=VECTOR_TASKS,
        default=["knn", "linear"],
        metavar="TASK",
        help=f"probes of the same model and images in the same table, of {', '.join(VECTOR_TASKS)} (knn linear)",
    )
    add_specs(parser)
    add_images(parser)
    add_protocol(parser)
    add_machine(parser)


def add_sweep(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the arguments of sweep."""
    parser.usage = f"randfeat probe {name} (STORE | MODEL DATA) -o DIR [options]"
    parser.add_argument("what", nargs="+", metavar="MODEL DATA", help="a model and images, or a store of many specs")
    parser.add_argument(
        "--tasks", nargs="+", choices=SWEEP_TASKS, default=list(SWEEP_TASKS), metavar="TASK", help="of knn, linear"
    )
    axes = parser.add_argument_group(
        "feature specs", "every combination that the model supports, see `randfeat extract --help`"
    )
    for axis, (default, what) in AXES.items():
        axes.add_argument(f"--{axis}", nargs="+", metavar="X", help=f"{what} ({' '.join(default)})")
    parser.add_argument("--folds", type=int, default=5, metavar="N", help="of train, each held out once (5)")
    add_images(parser)
    add_protocol(parser)
    add_machine(parser)


# what the arguments mean ---------------------------------------------------------------------------------------------


def protocol(args: argparse.Namespace, doing: str | None = None) -> Protocol:
    """Return the protocol that the arguments of `add_protocol` and `add_machine` ask for. doing: see `pick_device`."""
    from randfeat.probes import Protocol

    return Protocol(
        seed=args.seed,
        draws=args.resamples,
        held_out=args.held_out,
        search=not args.no_search,
        shots=args.shots,
        recipe=args.recipe,
        device=str(shared.pick_device(args, doing)),
    )
