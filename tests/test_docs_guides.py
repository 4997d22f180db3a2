"""The glossary names all that a feature spec and sampling can say; what guides compute is computed right."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from randfeat import FeatureSpec, models, tokenizers
from randfeat.inference import readout
from randfeat.inference.schedules import Schedule
from randfeat.models import MODELS, Context, Stream, orders
from randfeat.utils import devices
from randfeat.weights import published

DOCS = Path(__file__).parents[1] / "docs"
POOLS = ("mean", "max", "last", "none", "grid2")


def entries(text: str) -> set[str]:
    """Return the words that the glossary explains: those in bold at the beginning of a paragraph, without backticks."""
    heads = re.findall(r"^\*\*(.+?)\*\*: ", text, re.MULTILINE)
    return {word for head in heads for word in head.replace("`", "").split(", ")}


def test_every_context_stream_order_mode_and_pooling_is_in_the_glossary():
    glossary = (DOCS / "concepts" / "glossary.md").read_text(encoding="utf-8")
    explained = entries(glossary)
    wanted = {*get_args(Context), *get_args(Stream), *orders.MODES, *POOLS, *get_args(readout.Merge)}
    for model in MODELS.values():
        wanted |= {*model.contexts, *model.streams, *model.order_modes}
    assert wanted <= explained, f"not explained: {sorted(wanted - explained)}"
    for word in (*get_args(Schedule), "bidirectional", "shiftsS", *("guidance", "sweep", "step", "agreement", "K")):
        assert word in glossary


def test_the_poolings_looked_for_are_all_that_a_spec_takes():
    for pool in POOLS:
        FeatureSpec(pool=pool)
    with pytest.raises(ValueError, match="mean, max, last, none, gridG"):
        FeatureSpec(pool="median")


@pytest.mark.parametrize("text", ["**`full`**: all\n", "**store, cache**: two\n"])
def test_entries_are_found(text):
    assert entries(text) in ({"full"}, {"store", "cache"})


# what docs/guides/imagenet.md computes -------------------------------------------------------------------------------

IMAGENET = (DOCS / "guides" / "imagenet.md").read_text(encoding="utf-8")
BFLOAT16, FLOAT32 = 100e12, 15e12  # operations a second that the page assumes
TRAIN, VAL = 1_281_167, 50_000


def rows(text: str, header: str) -> list[list[str]]:
    """Return the cells of the rows of the table whose header row contains a text."""
    lines = text.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("|") and header in line)
    found = []
    for line in lines[at + 2 :]:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def test_sizes_on_disk_are_the_products_of_their_rows():
    table = rows(IMAGENET, "bytes a number")
    assert len(table) >= 10
    for name, images, each, size, total in table:
        assert int(images) * int(each) * int(size) / 1e9 == pytest.approx(float(total), abs=0.005), name


def giga(work: Callable[[], object]) -> float:
    """Return the floating-point operations of a piece of work in billions: matrix products, convolutions, attention."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        work()
    return counter.get_total_flops() / 1e9


@cache
def operations(size: str) -> list[float]:
    """Return the operations of an image, as the page's table has them: encode, default, dense, half, teacher-forced."""
    with devices.meta():
        vq = tokenizers.LlamaGenVQ()
        model = models.create(size, grid=(16, 16), vocab_size=16384, num_classes=1000).eval().requires_grad_(False)
        tokens, label = torch.zeros(1, 256, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
        order, images = torch.arange(256)[None], torch.zeros(1, 3, 256, 256)
        found = [giga(lambda: vq.latents(images))]
        for text in (model.default_spec, model.default_dense_spec, "raster/full/token/L0.5/mean/mean"):
            spec = FeatureSpec.parse(text).resolved(model.depth)
            (layer,) = map(int, spec.layers)
            found.append(giga(partial(model.hidden, tokens, None, order, [layer], spec.context, spec.stream)))
        return [*found, giga(partial(model, tokens, label, order))]


LARGER = [pytest.param(*row, marks=pytest.mark.slow) for row in ((2, "arpg_xl"), (3, "arpg_xxl"), (5, "randar_xl"))]


@pytest.mark.parametrize(("column", "size"), [(1, "arpg_l"), (4, "randar_l"), *LARGER])
def test_operations_are_those_of_the_networks(column, size):
    counted = operations(size)
    written = [float(row[column].split("/")[0]) for row in rows(IMAGENET, "operations for one image")]
    assert written == pytest.approx([*counted, 3 * counted[-1]], abs=1.5)


def test_hours_follow_from_them():
    encode, default, *_, forward = (1e9 * count for count in operations("arpg_l"))
    randar = [1e9 * count for count in operations("randar_l")]
    for seconds, said in (
        (TRAIN * encode / FLOAT32, "3.3 hours and 8 minutes"),
        (TRAIN * default / BFLOAT16, "0.5 hours from tokens, 3.8 from pictures"),
        (10 * TRAIN * encode / FLOAT32, "32.8 (ten crops)"),
        (90 * TRAIN * (encode / FLOAT32 + default / BFLOAT16), "344 hours"),
        (VAL * 341 * randar[-1] / BFLOAT16, "17 hours for 50,000 images"),
        (500_000 * 1024 * 3 * forward / BFLOAT16, "687 |"),
        (360_000 * 1024 * 3 * randar[-1] / BFLOAT16, "1075 |"),
        (5_000 * 64 * 3 * forward / BFLOAT16, "0.4 hours (computed: 483"),
    ):
        assert said in IMAGENET
        first = re.search(r"[\d.]+", said)
        assert first is not None
        digits = len(first[0].partition(".")[2])
        assert round(seconds / 3600, digits) == float(first[0]), said


def test_minutes_of_sampling_follow_from_published_speeds():
    for name, *_, speed, minutes in rows(IMAGENET, "50,000, computed from it"):
        assert VAL / float(speed) / 60 == pytest.approx(float(minutes.split()[0]), abs=0.6), name


def test_sampling_of_the_table_is_that_of_the_models():
    for name, steps, guidance, *_ in rows(IMAGENET, "50,000, computed from it"):
        sampling = published.MODELS[name.strip("`")].sampling
        count, schedule = steps.split(", ")
        assert int(count) == sampling.steps
        assert sampling.schedule.startswith(schedule)
        scales = [float(number) for number in re.findall(r"[\d.]+", guidance)]
        assert scales == ([sampling.guidance.scale] if len(scales) == 1 else [sampling.guidance.start, 4.0])
        assert sampling.guidance.scale == scales[-1]
