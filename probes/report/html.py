"""Report of records: one self-contained page, report.html, and each plot as a PNG file."""

import base64
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure
from PIL import Image

from randfeat.utils.atomic import write_bytes

from . import plots, sheets
from .names import candidate_name, metric_name, task_name
from .record import CHOSEN, Comparison, Record, about_dagger, compare, percent, strongest_baselines
from .sheets import Pictures
from .style import png

PAGE, PLOTS = "report.html", "plots"
_CSS_DPI = 96
_EMBEDDED = 14_000_000  # characters of all pictures in the page; further ones are only in plots/
_HEAVY = 150_000  # bytes of a picture that is shown as a JPEG where that is smaller
_FEW = 12  # comparisons that are not folded away
_MOST_DIFFERENCES = 40  # lines of a plot


@dataclass(frozen=True)
class Chart:
    """Extra picture of the page. section: the name of a record, for its details, or the heading of a new section."""

    title: str
    caption: str
    png: bytes
    section: str


@dataclass(frozen=True)
class _Shown:
    """Figure of the page. source: a data URI, "" if the page would become too large. width, height: in CSS pixels."""

    title: str
    caption: str
    file: str
    source: str
    width: int
    height: int


def write_report(
    records: Sequence[Record],
    out: str | Path,
    pictures: Pictures | None = None,
    charts: Sequence[Chart] = (),
    comparisons: Sequence[Comparison] | None = None,
    title: str = "Measurements",
    note: str = "",
) -> Path:
    """Write out/report.html and, as PNG files, out/plots/; return the path of the page, which is written last.

    pictures: maps the path of an image, as in the records, to its picture; None shows no images. charts: more pictures.
    comparisons: result of `compare`, computed here if None. note: a sentence at the head of the page.
    """
    if not records:
        raise ValueError("there are no records to report on: measure something first.")
    folder = Path(out)
    (folder / PLOTS).mkdir(parents=True, exist_ok=True)
    claims = compare(records) if comparisons is None else comparisons
    own, earlier = _Figures(folder / PLOTS), _plots_of_page(folder / PAGE)
    names = list(dict.fromkeys(record.name for record in records if not record.is_baseline))
    more: dict[str, list[_Shown]] = {}
    tasks = [_task(list(group), own) for group in _by_task(records)]
    differences = _differences(claims, own)
    for number, chart in enumerate(charts):
        name = f"{_slug(chart.section)}-{_slug(chart.title)}-{number}"
        more.setdefault(chart.section, []).append(own.add(name, chart.title, chart.caption, chart.png))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    environment.filters |= {"spelt": metric_name, "task": task_name, "candidate": candidate_name}
    page = environment.get_template("report.html.j2").render(
        title=title,
        note=note,
        facts=_facts(records),
        made_with=_made_with(records),
        tasks=tasks,
        differences=differences,
        sections={name: shown for name, shown in more.items() if name not in names},
        models=[_model(name, records, more.get(name, []), pictures, own) for name in names],
    )
    write_bytes(folder / PAGE, page.encode("utf-8", "backslashreplace"))  # names of files may not be valid text
    for name in earlier - own.written:  # of a measurement that this page does not show any more
        (folder / PLOTS / name).unlink(missing_ok=True)
    return folder / PAGE


class _Figures:
    """Figures of the page, each also written as a file of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._left = folder, _EMBEDDED
        self.written: set[str] = set()

    def add(self, name: str, title: str, caption: str, content: bytes) -> _Shown:
        """Write a PNG file and return its figure."""
        write_bytes(self._folder / f"{name}.png", content)
        self.written.add(f"{name}.png")
        with Image.open(io.BytesIO(content)) as picture:
            size, dpi = picture.size, float(picture.info.get("dpi", (_CSS_DPI,))[0])
            kind, shown = _light(picture, content)
        source = f"data:image/{kind};base64,{base64.b64encode(shown).decode()}"
        self._left -= len(source)
        width, height = (max(1, round(side * _CSS_DPI / dpi)) for side in size)
        return _Shown(title, caption, f"{PLOTS}/{name}.png", source if self._left >= 0 else "", width, height)

    def plot(self, name: str, title: str, caption: str, figure: Figure) -> _Shown:
        return self.add(name, title, caption, png(figure))

    def sheet(self, name: str, title: str, caption: str, picture: Image.Image) -> _Shown:
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        return self.add(name, title, caption, buffer.getvalue())


def _plots_of_page(page: Path) -> set[str]:
    """Return the names of the plots that an earlier page shows."""
    if not page.is_file():
        return set()
    return set(re.findall(rf'data-file="{PLOTS}/([^"<>/]+\.png)"', page.read_text(encoding="utf-8", errors="replace")))


def _light(picture: Image.Image, content: bytes) -> tuple[str, bytes]:
    """Return format and bytes of a picture: its PNG, or a JPEG if the PNG is large and the JPEG smaller."""
    if len(content) > _HEAVY:
        buffer = io.BytesIO()
        picture.convert("RGB").save(buffer, "JPEG", quality=88, subsampling=0)
        if len(buffer.getvalue()) < len(content):
            return "jpeg", buffer.getvalue()
    return "png", content


# parts of the page --------------------------------------------------------------------------------------------------


def _by_task(records: Sequence[Record]) -> Iterator[list[Record]]:
    for task in dict.fromkeys(record.task for record in records):
        yield [record for record in records if record.task == task]


def _facts(records: Sequence[Record]) -> dict[str, str]:
    """Return the facts at the head of the page, as far as the records hold them."""
    facts: dict[str, str] = {}

    def of_all(key: str) -> list[Any]:
        found = [record.settings[key] for record in records if key in record.settings]
        return [one for i, one in enumerate(found) if one not in found[:i]]

    def joined(key: str) -> str:
        return " or ".join(f"{value:,}" if isinstance(value, int) else str(value) for value in of_all(key))

    groups = of_all("groups")
    for part in ("test", "train"):
        if images := joined(f"{part} images"):
            own = " or ".join(f"{one[part]:,}" for one in groups)
            facts[part] = f"{images} images{f' of {own} groups' if own else ''}"
    if (unseen := joined("test images of unseen classes")) and "test" in facts:
        facts["test"] += f", {unseen} of classes that train lacks, which count as wrong"
    if "test" not in facts:
        counts = sorted({score.n for record in records for score in record.scores.values()})
        what = "image pairs" if all(record.task == "correspondence" for record in records) else "images"
        facts["test"] = f"{' or '.join(f'{count:,}' for count in counts)} {what}"
    if classes := joined("classes"):
        facts["classes"] = classes
    if any(record.search for record in records):
        shares = " or ".join(f"{100 * share:g}" for share in of_all("held_out"))
        facts["choices"] = f"on {shares} % of train, held out; test is scored once" if shares else "on train"
    grouped = any("groups" in record.arrays for record in records)
    draws = f", {joined('draws')} draws" if of_all("draws") else ""
    facts["intervals"] = f"95 %, bootstrap over {'groups, then images' if grouped else 'what was scored'}{draws}"
    facts["time"] = _duration(sum(record.seconds for record in records))
    return facts


def _made_with(records: Sequence[Record]) -> list[str]:
    found = dict.fromkeys(pair for record in records for pair in record.made_with.items())
    return [f"{'commit' if name == 'git' else name} {value}" for name, value in found]


def _task(records: list[Record], own: _Figures) -> dict[str, Any]:
    """Return the table of a task and the plot of its headline."""
    records = sorted(records, key=lambda record: record.is_baseline)
    task, headline = records[0].task, records[0].headline
    metrics = list(dict.fromkeys(metric for record in records for metric in record.scores))
    highest = {m: max(record.scores[m].value for record in records if m in record.scores) for m in metrics}
    counts = sorted({score.n for record in records for score in record.scores.values()})
    baselines = [record.name for record in records if record.is_baseline]
    shown = [metric for metric in (headline, CHOSEN) if metric in metrics]
    panels = {
        metric_name(metric, task): {one.name: one.scores[metric] for one in records if metric in one.scores}
        for metric in shown
    }
    strongest = strongest_baselines(records)
    return {
        "id": task,
        "name": task_name(task),
        "metrics": metrics,
        "records": records,
        "baselines": any(record.is_baseline for record in records),
        "strongest": strongest,
        "dagger": about_dagger(records) if strongest else "",
        "highest": highest,
        "n": " to ".join(f"{count:,}" for count in (counts[0], counts[-1])[: len(counts)]),
        "figure": own.plot(
            f"{task}-intervals",
            ", ".join(panels),
            f"{task_name(task)}: {', '.join(panels)}; blue models, grey baselines.",
            plots.intervals(panels, baselines),
        ),
    }


def _differences(claims: Sequence[Comparison], own: _Figures) -> dict[str, Any] | None:
    """Return the comparisons, with a plot for each task; None without any."""
    if not claims:
        return None
    figures = []
    for task in dict.fromkeys(claim.task for claim in claims):
        mine = [claim for claim in claims if claim.task == task][:_MOST_DIFFERENCES]
        lines = {f"{c.a} − {c.b} ({metric_name(c.metric, task)})": c for c in mine}
        figure = plots.differences(
            {name: c.difference for name, c in lines.items()}, {name: c.claim.holds for name, c in lines.items()}
        )
        title = task_name(task)
        figures.append(own.plot(f"{task}-differences", title, f"{title}: paired differences.", figure))
    return {
        "rows": claims,
        "figures": figures,
        "holding": sum(claim.claim.holds for claim in claims),
        "open": len(claims) <= _FEW,
    }


def _model(
    name: str, records: Sequence[Record], charts: Sequence[_Shown], pictures: Pictures | None, own: _Figures
) -> dict[str, Any]:
    """Return the details of one model, task by task."""
    mine = [record for record in records if record.name == name and not record.is_baseline]
    parts = [
        {
            "name": task_name(record.task),
            "record": record,
            "figures": [*_plots_of(record, own), *(_sheets_of(record, pictures, own) if pictures else [])],
            "settings": _json(record.settings),
            "fingerprints": record.fingerprints,
            "took": _duration(record.seconds),
        }
        for record in mine
    ]
    return {"name": name, "tasks": parts, "charts": charts}


def _plots_of(record: Record, own: _Figures) -> Iterator[_Shown]:
    title, arrays = task_name(record.task), record.arrays
    if len(record.search) > 1:
        scored = "top-1 accuracy" if record.task == "knn" else metric_name(record.headline, record.task)
        caption = f"{len(record.search):,} candidates, scored on images that test does not have."
        figure = plots.search(record.search, record.chosen, f"{scored} on train, %")
        yield own.plot(f"{record.stem}-search", f"{title}: search", caption, figure)
    if "predicted" in arrays:
        caption = "Rows: true classes; columns: predicted classes; percent of the row."
        figure = plots.confusion(arrays["truth"], arrays["predicted"])
        yield own.plot(f"{record.stem}-confusion", f"{title}: confusions", caption, figure)
    if len(record.per_class) > 1:
        headline = metric_name(record.headline, record.task)
        figure = plots.class_bars({record.name: record.per_class}, f"{headline}, %")
        caption = f"{headline} of each class, the worst first."
        yield own.plot(f"{record.stem}-classes", f"{title}: classes", caption, figure)


def _sheets_of(record: Record, pictures: Pictures, own: _Figures) -> Iterator[_Shown]:
    title, arrays = task_name(record.task), record.arrays
    if "predicted" in arrays and (wrong := int((arrays["truth"] != arrays["predicted"]).sum())):
        caption = f"Of {wrong:,} test images that were taken for another class, the most frequent confusions first."
        sheet = sheets.mistakes_sheet(arrays, pictures)
        yield own.sheet(f"{record.stem}-mistakes", f"{title}: mistakes", caption, sheet)
    if "nearest" in arrays:
        caption = "Left the query, then its nearest test images; green: of its class, red: of another."
        extremes = sheets.extremes(arrays["right"], arrays["truth"])
        for which, rows in zip(("best", "worst"), extremes, strict=True):
            if len(rows):
                sheet = sheets.retrieval_sheet(arrays, rows, pictures)
                metric = metric_name(record.headline, record.task)
                words = f"{caption} Queries with the {which} {metric}, which is below them."
                yield own.sheet(f"{record.stem}-{which}", f"{title}: {which} queries", words, sheet)


# words --------------------------------------------------------------------------------------------------------------


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _json(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, indent=2, ensure_ascii=False)


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._=-]+", "-", text).strip("-.")[:80] or "chart"
