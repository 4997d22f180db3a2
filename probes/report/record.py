"""Records of evaluations: on disk, in tables, and compared with correction for multiple claims.

<task>-<name>.json   a `Record`
<task>-<name>.npz    its arrays, a row for each test image, for paired comparisons and pictures
results.csv          a row with the summary of each record of the folder: see `Record.summary`
"""

import csv
import hashlib
import io
import json
import re
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from randfeat.utils.arrays import write_npz
from randfeat.utils.atomic import write_bytes

from ..protocol import CHANCE
from ..stats import Claim, Difference, Interval, holm, paired
from .names import metric_name, task_name

FORMAT = "evaluation of randfeat, version 1"
RESULTS = "results.csv"
TASKS = (
    "knn",
    "linear",
    "attentive",
    "fewshot",
    "retrieval",
    "correspondence",
    "segmentation",
    "cluster",
    "likelihood",
)
NEAREST = 10  # images of each query that are kept for pictures
CHOSEN = "chosen"  # metric of the candidate chosen on train, if the headline was fixed in advance
_COLUMNS = (
    "task",
    "name",
    "metric",
    "value",
    "low",
    "high",
    "n",
    "chosen",
    "baseline",
    "seconds",
    "made_with",
    "record",
)
_PACKAGES = ("randfeat", "numpy", "scikit-learn", "faiss-cpu", "torch")
_CLAIM_DRAWS = 40  # resamples per claim of a family, so that Holm's smallest p can be reached: see `holm`


@dataclass(frozen=True)
class Record:
    """Evaluation of one feature by one probe.

    name: of the features. task: one of TASKS. scores: by metric, each in 0..1; the first is the headline.
    chosen: the candidate that was chosen on train, "" if there was no choice. search: the score of every candidate on
    held-out images of train. per_class: the headline by class. settings: of probe and split, JSON values.
    fingerprints: of features, data and labels. made_with: versions, and the git commit if there is one. seconds: the
    duration.

    arrays: by name, a row for each test image:
        "right"             the headline's score of each image, in 0..1: its mean is the headline. For segmentation, the
                            contribution of each image, which may lie outside 0..1: see `Overlaps.scores`
        "right <metric>"    the same for another metric of `scores` that has a score per image
        "runs", "runs <metric>"  the same (runs, n), if several draws or seeds were scored
        "paths", "truth"    the name of each image and its label; "predicted", its predicted label, for classifiers
        "groups"            the group of each image, if there are groups
        "nearest"           retrieval: rows (n, 10) of "gallery", all test images, that are nearest, the best first
    """

    name: str
    task: str
    scores: dict[str, Interval]
    chosen: str = ""
    search: dict[str, float] = field(default_factory=dict)
    per_class: dict[str, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    fingerprints: dict[str, str] = field(default_factory=dict)
    made_with: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict, compare=False, repr=False)

    @property
    def headline(self) -> str:
        """First metric of `scores`, which stands for the record."""
        return next(iter(self.scores))

    @property
    def summary(self) -> str:
        """Metric for a line about the record: "chosen", the score of what was chosen on train, or else the headline."""
        return CHOSEN if CHOSEN in self.scores else self.headline

    @property
    def is_baseline(self) -> bool:
        """True for a baseline."""
        return bool(self.settings.get("baseline"))

    @property
    def stem(self) -> str:
        """Name of its files without suffix."""
        slug = re.sub(r"[^A-Za-z0-9._=+*,-]+", "-", self.name).strip("-.").replace("*", "x")[:100]
        digest = hashlib.sha256(self.name.encode()).hexdigest()[:6]  # two names may be spelled alike
        return f"{self.task}-{slug}-{digest}"

    def save(self, directory: str | Path) -> Path:
        """Write JSON, arrays and the row in results.csv; return the path of the JSON.

        A record of the same task and name is replaced. No file is ever half written, and the JSON is written after the
        arrays.
        """
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.stem}.json"
        path.unlink(missing_ok=True)  # a crash must not leave it with the arrays of the new record
        write_npz(path.with_suffix(".npz"), self.arrays)
        content = {"format": FORMAT, **{key: value for key, value in asdict(self).items() if key != "arrays"}}
        write_bytes(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())
        self._add_row(folder / RESULTS)
        return path

    @classmethod
    def load(cls, path: str | Path) -> "Record":
        """Open the JSON that `save` wrote, with its arrays.

        Raises a FileNotFoundError for a missing file and a ValueError for a file that is no record.
        """
        path = Path(path)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content.pop("format") != FORMAT:
                raise KeyError("format")
            content["scores"] = {metric: Interval(**score) for metric, score in content["scores"].items()}
            with np.load(path.with_suffix(".npz"), allow_pickle=False) as arrays:
                return cls(**content, arrays=dict(arrays))
        except FileNotFoundError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError) as error:
            raise ValueError(
                f"{path} is no record of an evaluation, or damaged; give a JSON file of a probe."
            ) from error

    def _add_row(self, path: Path) -> None:
        rows = []
        if path.exists():
            with path.open(encoding="utf-8", newline="") as file:
                rows = [row for row in csv.reader(file)][1:]
        score = self.scores[self.summary]
        made = " ".join(f"{name}={value}" for name, value in self.made_with.items())
        row = [self.task, self.name, self.summary, score.value, score.low, score.high, score.n, self.chosen]
        row += ["yes" if self.is_baseline else "no", round(self.seconds, 3), made, f"{self.stem}.json"]
        kept = [other for other in rows if other[-1:] != row[-1:]]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([_COLUMNS, *kept, row])
        write_bytes(path, text.getvalue().encode())


@dataclass(frozen=True)
class Comparison:
    """Difference `a - b` of two records in one metric over the same test images.

    claim: whether it holds after Holm's correction over all comparisons made together.
    """

    task: str
    metric: str
    a: str
    b: str
    difference: Difference
    claim: Claim


def strongest_baseline(records: Sequence[Record], metric: str) -> Record | None:
    """Return the baseline of one task with the best score on held-out images of train, the first of equals.

    If nothing was held out (see `chosen_on_train`), it is the one with the highest score, the hardest to beat. Chance
    is none of them: that a model beats it says nothing.
    """
    baselines = _baselines(records, metric)
    if not baselines:
        return None
    on_train = chosen_on_train(records, metric)

    def promise(record: Record) -> float:
        if not on_train:
            return record.scores[metric].value
        fixed = [score for name, score in record.search.items() if name.endswith(f"/{metric}")]
        return max(fixed or record.search.values())  # a metric fixed in advance has a candidate of its name

    return max(baselines, key=promise)


def chosen_on_train(records: Sequence[Record], metric: str) -> bool:
    """Return whether `strongest_baseline` is chosen on train: all baselines were scored on held-out images of it."""
    return all(record.search for record in _baselines(records, metric))


def _baselines(records: Sequence[Record], metric: str) -> list[Record]:
    return [one for one in records if one.is_baseline and one.name != CHANCE and metric in one.scores]


def compare(records: Sequence[Record], seed: int = 0, level: float = 0.95) -> list[Comparison]:
    """Return the paired differences of records: every two models, and each model with the strongest baseline.

    They are compared in each task's headline and in the metric "chosen"; all p-values are one family. Nothing is
    compared with chance. All records of a task must have scored the same test images.
    """
    pairs = []
    for task in dict.fromkeys(record.task for record in records):
        own = [record for record in records if record.task == task]
        _check_same_images(own)
        rivals = [record for record in own if record.name != CHANCE]
        models = [record for record in rivals if not record.is_baseline] or rivals
        metrics = dict.fromkeys(record.headline for record in own) | dict.fromkeys([CHOSEN])
        for metric in metrics:
            scored = [record for record in models if metric in record.scores]
            best = strongest_baseline(own, metric)
            pairs += [(metric, a, b) for a, b in combinations(scored, 2)]
            pairs += [(metric, a, best) for a in scored if best is not None and best is not a]
    if not pairs:
        return []
    draws = max(2000, 2 * _CLAIM_DRAWS * len(pairs))
    differences = [
        paired(runs_of(a, metric), runs_of(b, metric), a.arrays.get("groups"), draws, seed, level)
        for metric, a, b in pairs
    ]
    claims = holm({str(i): difference.p for i, difference in enumerate(differences)}, level)
    return [
        Comparison(a.task, metric, a.name, b.name, difference, claim)
        for (metric, a, b), difference, claim in zip(pairs, differences, claims.values(), strict=True)
    ]


def class_means(scores: NDArray[np.floating], labels: NDArray[Any]) -> dict[str, float]:
    """Return the mean of `scores` (n,) over the images of each class in `labels` (n,), for `Record.per_class`."""
    return {str(one): float(scores[labels == one].mean()) for one in np.unique(labels)}


def runs_of(record: Record, metric: str) -> NDArray[np.float64]:
    """Return the score of each test image in one metric, (n,), or (runs, n) if there are several runs."""
    own = "" if metric == record.headline else f" {metric}"
    found = record.arrays.get(f"runs{own}", record.arrays.get(f"right{own}"))
    if found is None:
        raise ValueError(f"the record of {record.name} has no {metric} of each image; compare another metric.")
    return np.asarray(found, dtype=np.float64)


def markdown(records: Sequence[Record], comparisons: Sequence[Comparison] = ()) -> str:
    """Return Markdown tables in percent with intervals: one per task, a row per record, a column per metric.

    Baselines come last; the strongest of a column has a dagger. The comparisons follow, with whether each holds.
    """
    lines = []
    for task in dict.fromkeys(record.task for record in records):
        own = sorted((record for record in records if record.task == task), key=lambda record: record.is_baseline)
        metrics = list(dict.fromkeys(metric for record in own for metric in record.scores))
        strongest = strongest_baselines(own)
        lines += [
            _row([task_name(task), *(metric_name(metric, task) for metric in metrics)]),
            _row(["---", *("---:" for _ in metrics)]),
        ]
        for record in own:
            name = f"*{record.name}*" if record.is_baseline else record.name
            marks = ("†" if record is strongest.get(metric) else "" for metric in metrics)
            scores = (percent(record.scores.get(metric)) for metric in metrics)
            lines.append(_row([name, *map("".join, zip(scores, marks, strict=True))]))
        counts = {score.n for record in own for score in record.scores.values()}
        images = f"{min(counts):,}" if len(counts) == 1 else f"{min(counts):,} to {max(counts):,}"
        dagger = f" {about_dagger(own)}" if strongest else ""
        lines += ["", f"Percent with 95 % intervals, n = {images}; baselines in italics.{dagger}", ""]
    if comparisons:
        lines += [_row(["paired difference", "task", "points", "p", "p (Holm)", "holds"]), _row(["---"] * 6)]
    for c in comparisons:
        what = [f"{c.a} − {c.b}", f"{task_name(c.task)}: {metric_name(c.metric, c.task)}", percent(c.difference)]
        lines.append(
            _row([*what, f"{c.difference.p:.4f}", f"{c.claim.adjusted:.4f}", "yes" if c.claim.holds else "no"])
        )
    return "\n".join(lines).strip() + "\n"


def strongest_baselines(records: Sequence[Record]) -> dict[str, Record]:
    """Return the strongest baseline of one task by metric, for the headline and for "chosen"."""
    found = {metric: strongest_baseline(records, metric) for metric in dict.fromkeys([records[0].headline, CHOSEN])}
    return {metric: record for metric, record in found.items() if record is not None}


def about_dagger(records: Sequence[Record]) -> str:
    """Return a sentence about the mark of the strongest baseline of one task, which says what it was chosen on."""
    if chosen_on_train(records, records[0].headline):
        return "† the baseline chosen on train, by its score on held-out images there; models are compared with it."
    return (
        "† the baseline with the highest score of the column, since none was held out of train to choose it on; models "
        "are compared with it."
    )


def percent(score: Interval | None) -> str:
    """Return a score in percent with its interval, "94.5 [89.8, 98.1]", or "" for None."""
    return "" if score is None else f"{_points(score.value)} [{_points(score.low)}, {_points(score.high)}]"


def made_with() -> dict[str, str]:
    """Return the versions of the packages that compute, and the git commit if these files are in a checkout."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    commit = _git_commit(Path(__file__).parent)
    return found | ({"git": commit} if commit else {})


def _git_commit(folder: Path) -> str | None:
    """Return the commit of the repository that tracks this file, with "-dirty" if files were changed since."""
    try:
        for command in (
            ["ls-files", "--error-unmatch", "record.py"],
            ["describe", "--always", "--dirty", "--abbrev=40"],
        ):
            answer = subprocess.run(
                ["git", "-C", str(folder), *command], capture_output=True, text=True, check=True
            ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.strip()


def _check_same_images(records: Sequence[Record]) -> None:
    first = records[0]
    for record in records[1:]:
        if not np.array_equal(record.arrays.get("paths", ()), first.arrays.get("paths", ())):
            raise ValueError(
                f"{first.task} of {record.name} and of {first.name} were scored on other test images; "
                "evaluate both on the same."
            )


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _points(share: float) -> str:
    return f"{100 * share:.1f}".replace("-", "−")
