"""Study of views: does the class by likelihood get better where each order reads another view of the image?

    python -m studies.views WORK                    # a quarter of an hour of a core; the same command resumes
    python -m studies.views.tables docs             # the tables of what was found

On two sets, Fashion-MNIST with the `fashion-arpg` of the package and letters in unseen typefaces with a small ARPG that
is trained first. All views were fixed before any was tried, and are scored on the same test images in as many orders
as the image as it stands, for about as many passes: successive halving decides how many.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from randfeat import SuccessiveHalving, Views, cli
from randfeat.inference.successive_halving import Rung
from randfeat.utils import arrays, progress
from randfeat.utils.parallel import use_threads
from randfeat.weights import fingerprint
from studies.fashion.units import keep, key_of
from studies.reading.material import as_pixels

from .sets import SETS, TESTED, ViewSet

FOUND = Path(__file__).parent / "found"
PLAIN = "as it stands"
# name of the views -> the views; of each set the ones that make sense of its images: a mirrored letter is another one
ARMS: dict[str, Mapping[str, Views]] = {
    "fashion": {
        PLAIN: Views(),
        "2 x 2 places, mirrored": Views(shifts=2, flip=True),
        "crops of .8": Views(crop=0.8),
        "jitter of .2": Views(jitter=0.2),
    },
    "letters": {
        PLAIN: Views(),
        "3 x 3 places": Views(shifts=3),
        "crops of .8": Views(crop=0.8),
        "jitter of .2": Views(jitter=0.2),
    },
}
COUNT = 8  # orders
SHARE = {"fashion": 0.3, "letters": 0.12}  # of the classes, the likeliest in one order, that are read in all orders
AT_ONCE = 100


def main() -> None:
    """Measure what was not measured before."""
    args = parser().parse_args()
    use_threads(args.threads)
    for name in args.sets:
        measure(name, args)


def measure(name: str, args: argparse.Namespace) -> None:
    """Classify the test images of a set in all views, part after part, and keep which of them were right."""
    made = SETS[name](args.work)
    weights = fingerprint(made.model.generator, made.model.tokenizer)[:12]
    halving = SuccessiveHalving((Rung(1), Rung(math.inf, SHARE[name])))
    arms = {arm: ARMS[name][arm] for arm in (args.arms or ARMS[name])}
    keys = {arm: f"{weights}-{key_of(views, COUNT, SHARE[name])}" for arm, views in arms.items()}
    parts: dict[str, list[dict[str, np.ndarray]]] = {arm: [] for arm in arms}
    with progress.bar(len(arms) * args.images, name, "image") as bar:
        for start in range(0, args.images, AT_ONCE):
            some = slice(start, min(start + AT_ONCE, args.images))
            for arm, views in arms.items():
                path = args.work / "parts" / name / keys[arm] / f"{start}-{some.stop}.npz"
                parts[arm].append(part(path, made, some, views, halving))
                bar.update(some.stop - start)
    for arm, found in parts.items():
        scores = {each: np.concatenate([one[each] for one in found]) for each in ("right", "passes")}
        path = args.found / name / f"{arm}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        record = {"key": keys[arm], "arm": arm, "orders": COUNT, "images": args.images}
        record |= {"mean": float(scores["right"].mean()), "passes": float(scores["passes"].mean())}
        record["seconds"] = round(float(sum(one["seconds"] for one in found)), 1)
        keep(path, record, {"right": scores["right"], "groups": made.groups[: args.images]})
        print(f"{name}, {arm}: {100 * record['mean']:.1f} %", flush=True)


def part(path: Path, made: ViewSet, some: slice, views: Views, halving: SuccessiveHalving) -> dict[str, np.ndarray]:
    """Return which of some images are classified right, and the passes and processor seconds it took, from the file
    where there is one.
    """
    if not path.exists():
        began = time.process_time()
        answer = made.model.classify(as_pixels(made.images[some]), orders=COUNT, halving=halving, views=views)
        right = answer.best.numpy() == made.labels[some]
        seconds = np.asarray(time.process_time() - began)
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays.write_npz(path, {"right": right, "passes": answer.passes.numpy(), "seconds": seconds}, compressed=False)
    with np.load(path) as file:
        return dict(file)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("work", type=Path, metavar="WORK", help="folder of the letters and their model")
    made.add_argument("--found", type=Path, default=FOUND, metavar="DIR", help="folder of the results")
    made.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), metavar="SET", help=", ".join(SETS))
    made.add_argument("--images", type=int, default=TESTED, metavar="N", help=f"test images, the first N ({TESTED})")
    made.add_argument("--arms", nargs="+", metavar="NAME", help="some of the views (all)")
    made.add_argument("--threads", type=int, default=1, help="of the processor")
    return made


if __name__ == "__main__":
    sys.exit(cli.run_program("studies.views", main, "The same command goes on where this ended."))
