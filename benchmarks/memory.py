"""Peak memory of `randfeat extract` for few images and for many, which should be the same.

    OMP_NUM_THREADS=1 python benchmarks/memory.py --images 1000 10000

Each run is a process of its own, on pictures of 256 x 256 pixels that are all different. The peak is the largest sum,
sampled every 20 ms, of the proportional set sizes of the process and its decoding workers (PSS in Linux's /proc).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from randfeat import models
from randfeat.pipeline.pipeline import Pipeline
from randfeat.tokenizers import PatchTokenizer


def write_model(directory: Path) -> None:
    """Write a RandAR of 8 x 8 tokens over patches of 32 x 32 pixels, with random weights."""
    tokenizer = PatchTokenizer.fit(torch.rand(8, 3, 256, 256), 64, 32)
    size = dict(embed_dim=64, depth=2, num_heads=2, num_classes=0)
    Pipeline(tokenizer, models.create("randar", grid=(8, 8), vocab_size=64, **size)).save(directory)


def write_images(directory: Path, count: int) -> None:
    directory.mkdir()
    draw = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(draw.integers(0, 256, (24, 24, 3), dtype=np.uint8))
        coarse.resize((256, 256)).save(directory / f"{number:06}.jpg", quality=80)


def peak(command: list[str]) -> tuple[float, float]:
    """Return the peak memory of a command and its children in MiB, and its seconds."""
    began, most = time.monotonic(), 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        while running.poll() is None:
            most = max(most, sum(share(pid) for pid in family(running.pid)))
            time.sleep(0.02)
    if running.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with exit code {running.returncode}")
    return most / 1024, time.monotonic() - began


def family(pid: int) -> list[int]:
    """Return the ids of a process and all its descendants."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        children = []
    return [pid, *(other for child in children for other in family(int(child)))]


def share(pid: int) -> int:
    """Return the proportional set size of a process in KiB; 0 if it has just ended."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")), 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--spec", nargs="+", default=["raster/causal/token/L2/mean/mean"])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        write_model(root / "model")
        first = None
        for count in args.images:
            write_images(root / f"{count}", count)
            command = [sys.executable, "-m", "randfeat", "extract", str(root / "model"), str(root / f"{count}")]
            more = [
                "-o",
                str(root / f"out{count}"),
                "--workers",
                str(args.workers),
                "--device",
                "cpu",
                "--spec",
                *args.spec,
            ]
            most, seconds = peak(command + more)
            first = first or most
            print(
                f"{count:>8,} images: {most:7.0f} MiB, {most / first:.3f} of the first; {count / seconds:.0f} images/s"
            )


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
