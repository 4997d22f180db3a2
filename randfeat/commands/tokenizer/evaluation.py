"""Result of an evaluation of tokenizers: as a table, as JSON, and as the files of a folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ... import weights
from ...data.store import SKIPPED, as_csv
from ...probes.report.record import made_with
from ...probes.stats import Interval
from ...probes.tasks.reconstruction import TokenizerComparison, compare_tokenizers
from ...tokenizers import name_of
from ...utils import atomic
from .reconstruction import Images, Named, Outcome

FORMAT = "reconstruction by tokenizers, version 1"
RECORD, ERRORS, TABLE = "reconstruction.json", "images.csv", "table.md"
COMPARED = ["MSE, ratio", "L1, ratio", "PSNR, dB", "SSIM"]
ENDS = ("value", "low", "high")
FORMS: dict[str, Callable[[float], str]] = {
    "psnr": lambda value: f"{value:.2f}",
    "ssim": lambda value: f"{value:.4f}",
    "l1": lambda value: f"{value:.5f}",
    "mse": lambda value: f"{value:.3g}" if value < 1e-3 else f"{value:.5f}",
    "ratio": lambda value: f"{value:.3f}",
}


@dataclass(frozen=True)
class Evaluation:
    """Reconstructions of images by tokenizers, the first of which is compared with the others.

    evaluator: name of the network of the Fréchet distance, None without one. is_fid: whether it is Inception.
    settings: for the record, JSON values.
    """

    tokenizers: list[Named]
    images: Images
    outcome: Outcome
    evaluator: str | None
    is_fid: bool
    settings: Mapping[str, Any]

    @cached_property
    def numbers(self) -> list[dict[str, Any]]:
        """Numbers of each tokenizer, see `TokenizerQuality.as_dict`."""
        return [quality.as_dict() for quality in self.outcome.qualities]

    @cached_property
    def comparisons(self) -> list[TokenizerComparison]:
        """Comparisons of the first tokenizer with each other one."""
        first, *others = self.outcome.qualities
        return [compare_tokenizers(first, other) for other in others]

    @property
    def distance(self) -> str:
        """Name of the Fréchet distance."""
        return "rFID" if self.is_fid else "Fréchet distance"

    def rows(self) -> list[list[str]]:
        """Return the table's rows as text: a name, then a number of each tokenizer."""
        found = self.numbers
        rows = [
            [title, *(interval(one[name], name) for one in found)]
            for name, title in (("psnr", "PSNR, dB"), ("ssim", "SSIM"), ("l1", "L1"), ("mse", "MSE"))
        ]
        codes = [one["codes"] for one in found]
        rows += [
            ["codes used", *(f"{100 * use['usage']:.1f} % of {use['vocab_size']:,}" for use in codes)],
            ["perplexity", *(f"{use['perplexity']:,.1f}" for use in codes)],
            ["tokens an image", *(f"{one['tokens_an_image']:,}" for one in found)],
            ["bits a pixel", *(f"{one['bits_a_pixel']:.4g}" for one in found)],
            ["bits a pixel, entropy-coded", *(f"{one['entropy_a_pixel']:.4g}" for one in found)],
            ["border ratio", *(interval(one["border_ratio"], "ratio") for one in found)],
            ["border ratio, originals", *(interval(one["real_border_ratio"], "ratio") for one in found)],
        ]
        if self.evaluator is not None:
            rows.append([self.distance, *(f"{one['frechet']:.3f}" for one in found)])
        return rows

    def compared(self) -> list[list[str]]:
        """Return the rows of the table of comparisons: names, then ratios of mean errors and differences."""
        return [
            [
                f"{one.a} beside {one.b}",
                interval(one.mse_ratio, "ratio"),
                interval(one.l1_ratio, "ratio"),
                interval(one.psnr, "psnr", "+"),
                interval(one.ssim, "ssim", "+"),
            ]
            for one in self.comparisons
        ]

    def notes(self) -> list[str]:
        """Return sentences about the numbers."""
        (height, width), read = self.images.size, len(self.outcome.rows)
        source = self.images.source
        part = f", split {self.settings['split']}" if self.settings.get("split") else ""
        drawn = "" if len(self.images.rows) == len(source) else f" drawn from {len(source):,}"
        said = [f"{read:,} images{drawn} of {source.name}{part}, {height} x {width} pixels."]
        said += ["Means with 95 % bootstrap intervals over the images."]
        said += [f"{one.name}: {one.note}." for one in self.tokenizers if one.note]
        if self.evaluator is not None:
            said.append(f"{self.distance} of originals and reconstructions, by {self.evaluator}.")
        if any(use["tokens"] < 10 * use["vocab_size"] for use in (one["codes"] for one in self.numbers)):
            said.append("There are few tokens for so many codes: of more images, more codes are used.")
        return said

    def table(self) -> str:
        """Return the numbers as Markdown."""
        names = ["", *(quality.name for quality in self.outcome.qualities)]
        lines = [line(names), line(["---", *("---:" for _ in names[1:])]), *map(line, self.rows()), ""]
        if self.comparisons:
            lines += [line(["the same images", *COMPARED]), line(["---", *("---:" for _ in COMPARED)])]
            lines += [*map(line, self.compared()), ""]
        return "\n".join([*lines, *self.notes()])

    def record(self) -> dict[str, Any]:
        """Return all numbers and what decided them, as JSON values."""
        source = self.images.source
        crop = str(self.images.reader(self.tokenizers[0].tokenizer).crop)
        read, skipped = len(self.outcome.rows), len(self.outcome.skipped)
        data = {"name": source.name, "fingerprint": source.fingerprint(), "images": read, "skipped": skipped}
        named: dict[str, Any] = {}
        for one, numbers in zip(self.tokenizers, self.numbers, strict=True):
            config = {"name": name_of(one.tokenizer), **one.tokenizer.config}
            about = {"config": config, "fingerprint": weights.fingerprint(one.tokenizer), "note": one.note}
            about |= {"given": one.given} if one.given else {}
            named[one.name] = {**about, **numbers}
        return {
            "format": FORMAT,
            "data": {**data, "size": list(self.images.size), "crop": crop},
            "tokenizers": named,
            "comparisons": [asdict(one) for one in self.comparisons],
            "evaluator": self.evaluator,
            "settings": dict(self.settings),
            "made_with": made_with(),
        }

    def json(self) -> str:
        """Return the record as text."""
        return json.dumps(self.record(), indent=2, allow_nan=False)

    def write(self, directory: Path) -> None:
        """Write errors of each image, list of skipped images, table and, last, the record."""
        directory.mkdir(parents=True, exist_ok=True)
        atomic.write_bytes(directory / ERRORS, as_csv(self._errors()))
        atomic.write_bytes(directory / SKIPPED, as_csv([("path", "reason"), *self.outcome.skipped]))
        atomic.write_bytes(directory / TABLE, (self.table() + "\n").encode())
        atomic.write_bytes(directory / RECORD, (self.json() + "\n").encode())

    def _errors(self) -> list[list[Any]]:
        names = ("l1", "mse", "psnr", "ssim")
        header = [f"{name} {quality.name}" for quality in self.outcome.qualities for name in names]
        columns = [getattr(quality.errors, name).tolist() for quality in self.outcome.qualities for name in names]
        paths = [self.images.source.paths[row] for row in self.outcome.rows]
        return [["path", *header], *map(list, zip(paths, *columns, strict=True))]


def interval(found: Interval | Mapping[str, Any] | None, kind: str, sign: str = "") -> str:
    """Return a number with its interval as text. sign: "+" for a difference."""
    if found is None:
        return "none"
    value, low, high = (found[end] if isinstance(found, Mapping) else getattr(found, end) for end in ENDS)
    shown = [FORMS[kind](end) for end in (value, low, high)]
    plus = sign if value > 0 else ""
    return f"{plus}{shown[0]} [{shown[1]}, {shown[2]}]".replace("-", "−")


def line(cells: list[str]) -> str:
    """Return a row of a Markdown table."""
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
