"""Token store of ImageNet's size beside one file for each image, the layout that RandAR and LlamaGen publish.

    OMP_NUM_THREADS=1 python benchmarks/token_cache.py

Synthetic codes of 1,281,167 images, two crops of 256 tokens. Opening is timed in a process of its own; reading takes
shuffled batches of 256 images as training does, from the store and from --files files of the other layout (int64, shape
(1, crops, 256)), in turns. Both were just written, so both are in the machine's page cache.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from timing import alternate, ratio

from randfeat.data.token_store import UNKNOWN, TokenStore, TokenWriter

IMAGES, CROPS, N, VOCAB = 1_281_167, 2, 256, 16384
OPEN = "import sys, time; from randfeat.data.token_store import TokenStore; t = time.perf_counter(); s = TokenStore.open(sys.argv[1]); print(time.perf_counter() - t)"  # noqa: E501


def write_store(directory: Path) -> TokenStore:
    paths = [f"n{row // 1300:08}/n{row // 1300:08}_{row}.JPEG" for row in range(IMAGES)]
    about = dict(tokenizer="synthetic", grid=(16, 16), vocab_size=VOCAB, crops=CROPS)
    writer = TokenWriter(directory, paths, [row // 1300 for row in range(IMAGES)], **about)
    rng = np.random.default_rng(0)
    for start in range(0, IMAGES, 1 << 16):
        rows = min(1 << 16, IMAGES - start)
        writer.write(start, rng.integers(0, VOCAB, (rows, CROPS, N), dtype=np.uint16), np.full((rows, 2), UNKNOWN))
    return writer.finish()


def write_files(directory: Path, store: TokenStore, count: int) -> list[Path]:
    paths = []
    for row in range(count):
        path = directory / f"{row % 1000:04}" / f"{row}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, store.tokens[row][None].astype(np.int64))
        paths.append(path)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=20_000, help="files of the other layout")
    parser.add_argument("--batches", type=int, default=40, help="batches of 256 images in a round")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="tokens"))
    try:
        store = write_store(scratch / "store")
        size = sum(file.stat().st_size for file in store.directory.iterdir())
        command = [sys.executable, "-c", OPEN, str(store.directory)]
        opened = [float(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(args.rounds)]
        paths = write_files(scratch / "files", store, args.files)
        rng, batches = np.random.default_rng(1), args.batches

        def from_store() -> None:
            for _ in range(batches):
                rows = np.sort(rng.integers(0, IMAGES, 256))
                store.tokens[rows].astype(np.int64)

        def from_files() -> None:
            for _ in range(batches):
                np.stack([np.load(paths[row]) for row in rng.integers(0, len(paths), 256)])

        seconds = alternate({"store": from_store, "files": from_files}, args.rounds, time.process_time)
        print(f"{IMAGES:,} images: {size / 1e9:.2f} GB, opened in {np.median(opened):.2f} s")
        print(f"shuffled reading, times faster than files: {ratio(seconds, 'files', 'store')}")
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
