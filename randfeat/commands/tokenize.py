"""Tokens of all images of DATA into CACHE, and on where it was stopped. Training reads them from there.

DATA is what `randfeat extract` reads: a folder of images, a list, a dataset of the Hugging Face hub, WebDataset
archives, ImageNet as it comes. With --import it is tokens that somebody else made: the trees and tars of
<class>/<i>.npy that RandAR and LlamaGen publish (a tar is read as it is) or RAR's .jsonl.

CACHE then holds

  tokens.npy       uint16, (images, crops, tokens): 1.3 GB for ImageNet with two crops
  rows.parquet     path, label, width and height of each image
  skipped.csv      path and reason of each image that could not be read
  tokenizer/       the tokenizer, so that the cache is all that training needs
  meta.json        all that decided the tokens, written last

and opens with randfeat.data.token_store.TokenStore.open(CACHE).

crops, the first from the middle:
  centre     ADM's centre crop
  flip       and its mirror image (the default, as RandAR's code)
  ten        centre and corners of a larger centre crop, and their mirror images, for each of --ranges (as ARPG)
  random     the centre crop and --others random ones

examples:
  randfeat tokenize photos -o cache --tokenizer patch
  randfeat tokenize imagenet --split train -o cache --tokenizer llamagen-vq16 --crops ten --device cuda
  torchrun --nproc-per-node 8 -m randfeat tokenize imagenet --split train -o cache --tokenizer llamagen-vq16
  randfeat tokenize --import imagenet_tokens.tar -o cache --vocab 16384

exit code: 0 if all images were read, 3 if some were skipped (0 under torchrun, which takes any other for a crash), 1
after an error, one sentence, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from ..data.sources import Source, TokenSource
    from ..data.token_store import TokenStore
    from ..pretrain import Crops
    from ..tokenizers import Tokenizer

HOW_TO_RESUME = "Run the same command again: what is done is kept."
SOME_SKIPPED = 3  # exit code
FITTED = "patch"
SIZE, FITTED_SIZE = 256, 64
CODES, PATCH = 1024, 4


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    parser.usage = "randfeat tokenize DATA -o CACHE --tokenizer T [options]"
    parser.add_argument("data", metavar="DATA", help="the images; with --import their tokens")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="CACHE", help="where to write")
    parser.add_argument("--import", action="store_true", dest="imports", help="DATA holds tokens already")
    how = parser.add_argument_group("with which tokenizer")
    how.add_argument(
        "--tokenizer",
        metavar="T",
        help=f"a short name, a file, a model's directory; or {FITTED}: k-means over patches of these images",
    )
    how.add_argument("--patch", type=int, metavar="P", help=f"pixels of a side of a fitted patch ({PATCH})")
    how.add_argument("--vocab", type=int, metavar="V", help=f"codes of a fitted or imported tokenizer ({CODES})")
    what = parser.add_argument_group("which parts of the images")
    what.add_argument(
        "--size",
        type=int,
        nargs="+",
        metavar="N",
        help=f"pixels of a side, or height and width ({SIZE}; of a model's directory its own; fitted {FITTED_SIZE})",
    )
    what.add_argument("--crops", choices=("centre", "flip", "ten", "random"), default="flip", help="see above (flip)")
    what.add_argument("--ranges", type=float, nargs="+", default=[1.1, 1.05], metavar="R", help="of ten (1.1 1.05)")
    what.add_argument("--others", type=int, default=4, metavar="N", help="random crops of an image (4)")
    what.add_argument(
        "--scale", type=float, nargs=2, default=[0.35, 1.0], metavar="X", help="share of the area of random (0.35 1)"
    )
    what.add_argument("--seed", type=int, default=0, help="of random crops and of fitting (0)")
    what.add_argument("--split", metavar="NAME", help="train, val, ... of data that has splits")
    what.add_argument("--labels", type=Path, metavar="FILE", help="labels that do not lie with the images")
    machine = parser.add_argument_group("on which machine")
    machine.add_argument("--batch-size", type=int, default=64, metavar="B", help="crops at a time (64)")
    machine.add_argument("--workers", type=int, metavar="N", help="processes that decode (one for each processor)")
    machine.add_argument("--device", default="auto", help="cuda, mps or cpu; auto (the default) takes the first there")
    machine.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="bfloat16 is faster and gives other tokens, one in eight of LlamaGen's",
    )


def run(args: argparse.Namespace) -> int:
    import torch

    from ..data.sources import Source, open_source
    from ..data.store import SKIPPED
    from ..features.extract import reasons
    from ..pretrain import tokenize_images
    from ..utils import devices, distributed

    with distributed.ended_by_sigterm(), distributed.group():
        device = devices.pick(args.device)
        source = open_source(args.data, args.split, args.labels)
        if args.imports:
            store = _import(source, args, device)
        elif not isinstance(source, Source):
            raise ValueError(f"{args.data} holds tokens already: give --import to read them into a cache")
        else:
            tokenizer, size = tokenizer_of(source, args, device)
            crops = crops_of(args, size, tokenizer.channels)
            dtype = getattr(torch, args.dtype)
            store = tokenize_images(tokenizer, source, args.out, crops, args.batch_size, args.workers, dtype)
        skipped = store.skipped
        if distributed.rank() == 0:
            rows, columns = store.grid
            print(f"{len(store):,} images x {store.crops} crops of {rows} x {columns} tokens -> {args.out}")
            if skipped:
                print(f"{len(skipped):,} skipped, listed in {args.out / SKIPPED}: {reasons(skipped)}")
        return SOME_SKIPPED if skipped and distributed.world_size() == 1 else 0


def tokenizer_of(source: Source, args: argparse.Namespace, device: torch.device) -> tuple[Tokenizer, tuple[int, int]]:
    """Return the tokenizer, and height and width of what it reads."""
    from .. import weights
    from ..pretrain import fit_patches
    from ..weights.loading import load_tokenizer

    if args.tokenizer is None:
        raise ValueError(f"--tokenizer is missing: give a short name, a file, a model's directory, or {FITTED}")
    if args.tokenizer == FITTED:
        size = _size(args, (FITTED_SIZE, FITTED_SIZE))
        return fit_patches(source, size, args.patch or PATCH, args.vocab or CODES, args.seed).to(device), size
    if args.patch or args.vocab:
        raise ValueError(f"--patch and --vocab are for --tokenizer {FITTED}: leave them out")
    tokenizer = load_tokenizer(args.tokenizer, device)
    usual, directory = (SIZE, SIZE), Path(args.tokenizer)
    if (directory / weights.TOKENIZER).is_dir() and weights.is_model(directory):
        h, w = weights.read_config(directory)["generator"]["grid"]
        usual = h * tokenizer.stride, w * tokenizer.stride
    return tokenizer, _size(args, usual)


def _size(args: argparse.Namespace, usual: tuple[int, int]) -> tuple[int, int]:
    if args.size is None:
        return usual
    if len(args.size) > 2 or min(args.size) < 1:
        raise ValueError("--size is one number of pixels from 1, or height and width")
    return args.size[0], args.size[-1]


def crops_of(args: argparse.Namespace, size: tuple[int, int], channels: int) -> Crops:
    from ..pretrain import CentreCrops, RandomCrops, TenCrops

    if args.crops == "ten":
        return TenCrops(size, channels, tuple(args.ranges))
    if args.crops == "random":
        return RandomCrops(size, channels, args.others, tuple(args.scale), seed=args.seed)
    return CentreCrops(size, channels, args.crops == "flip")


def _import(source: Source | TokenSource, args: argparse.Namespace, device: torch.device) -> TokenStore:
    from ..data.sources import TokenSource
    from ..pretrain import import_tokens
    from ..weights.loading import load_tokenizer

    if not isinstance(source, TokenSource):
        raise ValueError(f"{args.data} holds images: leave --import out to tokenise them")
    if args.tokenizer is None and args.vocab is None:
        raise ValueError("say whose tokens these are: --tokenizer T, or at least --vocab V, how many codes it has")
    tokenizer = None if args.tokenizer is None else load_tokenizer(args.tokenizer, device)
    vocab = args.vocab or tokenizer.vocab_size  # type: ignore[union-attr]
    return import_tokens(source, args.out, vocab, tokenizer, args.workers)
