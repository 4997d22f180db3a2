"""Shows where an image is unlike what the model expects.

The surprise of a token is -log p(token | those before it) in nats, its mean over K random orders. MODEL may have seen
labels or not: without --label it is asked without one. DIR then holds

  sheet.png               image and heat map side by side, for the first images
  0000-NAME.png ...       the heat map of each image, dark for none, bright for the most among all of these images
  surprise.npz            maps, float32 (images, rows, columns), and paths

--exact asks for each token given all others instead. That is what the word means, but it takes as many passes as an
image has tokens for every order. It finds single odd tokens better, larger patches hardly (docs/guides/likelihood.md).

examples:
  randfeat surprise demo/models/randar_free demo/digits/images/0000.png -o surprising
  randfeat surprise MODEL photos --orders 32 --label "golden retriever" -o surprising
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

HOW_TO_RESUME = "Nothing was written: run the same command again."
SHEET = 32  # images on a sheet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "randfeat surprise MODEL IMAGE ... -o DIR [options]"
    parser.add_argument("model", metavar="MODEL", help="what randfeat.load takes")
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="files, and folders of them")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="where to write")
    parser.add_argument("--orders", type=int, default=16, metavar="K", help="that surprise is averaged over (16)")
    parser.add_argument("--exact", action="store_true", help="each token given all others")
    parser.add_argument("--label", metavar="CLASS", help="what all images show: an index or a name (none)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the orders (0)")
    machine = parser.add_argument_group("on which machine")
    machine.add_argument("--batch-size", type=int, default=64, metavar="B", help="images at a time (64)")
    machine.add_argument("--device", default="auto", help="cuda, mps or cpu; auto (the default) takes the first there")
    machine.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the generator")


def run(args: argparse.Namespace) -> None:
    import numpy as np
    import torch

    from ..data import images as data
    from ..data.sources.folder import find_images
    from ..pipeline.pipeline import load
    from ..utils import atomic, devices, drawing

    paths = find_images(args.images)
    model = load(args.model, device=devices.pick(args.device), dtype=getattr(torch, args.dtype))
    labels = None if args.label is None else [args.label] * len(paths)
    maps = model.surprisal(paths, labels, args.orders, args.exact, args.seed, args.batch_size).numpy()
    crop, high = data.CentreCrop(model.image_size, model.tokenizer.channels), float(maps.max())
    seen, heated = [], []
    for path, values in zip(paths, maps, strict=True):
        picture = data.to_pil(torch.from_numpy(crop(data.as_picture(path))).movedim(2, 0) / 255)
        seen.append(picture)
        heated.append(drawing.heat(picture, values, 0.0, high))
    shown = [picture for pair in zip(seen[:SHEET], heated[:SHEET], strict=True) for picture in pair]
    captions = [
        text for path, one in zip(paths[:SHEET], maps, strict=False) for text in (path.name, f"to {one.max():.1f} nats")
    ]
    packed = io.BytesIO()
    np.savez_compressed(packed, maps=maps, paths=np.array([str(path) for path in paths]))
    args.out.mkdir(parents=True, exist_ok=True)
    for number, (path, picture) in enumerate(zip(paths, heated, strict=True)):
        atomic.write_bytes(args.out / f"{number:04}-{path.stem}.png", drawing.png(drawing.grid([picture])))
    atomic.write_bytes(args.out / "surprise.npz", packed.getvalue())
    atomic.write_bytes(args.out / "sheet.png", drawing.png(drawing.grid(shown, min(8, len(shown)), captions)))
    print(f"up to {high:.1f} nats; look at {args.out / 'sheet.png'} first")
