"""The handwritten digits that ship with scikit-learn as a folder of images, for `randfeat probe` and `extract`:

    python benchmarks/digits_folder.py digits
    randfeat probe all demo/models/randar_free digits --group writer --baselines -o measured

digits/metadata.csv has the columns path, label, split and writer. Train are writers 0 to 8, test the last five, whom
no model of the demo has seen. Which writer made which image is what the scikit-learn MOOC gives, see
randfeat/commands/demo/digits.py.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from PIL import Image

from randfeat.commands.demo.digits import TEST, load_digits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="DIR", help="where to write")
    out = parser.parse_args().out
    digits = load_digits()
    (out / "images").mkdir(parents=True)
    rows = []
    for number, (image, label, writer) in enumerate(zip(digits.images, digits.labels, digits.writers, strict=True)):
        path = f"images/{number:04}.png"
        Image.fromarray(np.rint(image[0].numpy() * 255).astype(np.uint8)).save(out / path)
        rows.append((path, int(label), "test" if int(writer) in TEST else "train", int(writer)))
    with (out / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "label", "split", "writer"), *rows])
    print(f"{len(rows):,} digits -> {out}")


if __name__ == "__main__":
    main()
