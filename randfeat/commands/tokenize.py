"""Encode all images of DATA as tokens, into a cache that training reads; a stopped run is resumed.

DATA is what `randfeat extract` reads: a folder of images, a list, a dataset of the Hugging Face hub, WebDataset
archives, ImageNet as it comes. With --import it is tokens that others made: the trees and tars of <class>/<i>.npy that
RandAR and LlamaGen publish (a tar is read as it is) or RAR's .jsonl.

CACHE then holds

  tokens.npy       uint16, (images, crops, tokens): 1.3 GB for ImageNet with two crops
  rows.parquet     path, label, width and height of each image
  skipped.csv      path and reason of each image that could not be read
  inputs.npy       size, time of change and SHA-256 of each file: the same command notices files that have changed
  tokenizer/       the tokenizer, so that the cache is all that training needs
  meta.json        all that decided the tokens, written last

and opens with randfeat.data.token_store.TokenStore.open(CACHE).

crops, the first from the centre:
  centre     ADM's centre crop
  flip       the centre crop and its mirror image (the default, as in RandAR's code)
  ten        centre and corners of a larger centre crop, and their mirror images, for each of --crop-ranges (as ARPG)
  random     the centre crop and --random-crops random ones
  moved      the centre crop, and --random-crops times moved by up to --reach pixels, half of them mirrored

Images are read as pictures of 8 bits, grey or RGB. A tokenizer with a range of values reads the values of the files
instead: of TIFFs, whose pages or samples are channels, arrays (.npy, H x W x C) and others. A fitted one is made so by
--range, or by --channels other than 1 and 3: their range is then that of 8 or 16 bits.

examples:
  randfeat tokenize photos -o cache --tokenizer patch
  randfeat tokenize satellite -o cache --tokenizer patch --channels 4 --range 0 10000
  randfeat tokenize imagenet --split train -o cache --tokenizer llamagen-vq16 --crops ten --device cuda
  torchrun --nproc-per-node 8 -m randfeat tokenize imagenet --split train -o cache --tokenizer llamagen-vq16
  randfeat tokenize --import imagenet_tokens.tar -o cache --vocab 16384

exit code: 0 if all images were read, 3 if some were skipped (0 under torchrun, which takes any other for a crash), 1
after an error, one sentence, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import options

if TYPE_CHECKING:
    import torch

    from ..data.sources import Source, TokenSource
    from ..data.token_store import TokenStore
    from ..pretrain import Crops
    from ..tokenizers import Tokenizer

HOW_TO_RESUME = "Run the same command again: what is done is kept."
FITTED = "patch"
SIZE, FITTED_SIZE = 256, 64
CODES, PATCH = 1024, 4
CROP_DEFAULTS = {
    "crop_ranges": [1.1, 1.05],
    "random_crops": 4,
    "scale": [0.35, 1.0],
    "contrast": 0.0,
    "reach": 2,
    "seed": 0,
}


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the arguments of `randfeat tokenize`."""
    parser.usage = f"randfeat {command} DATA -o CACHE --tokenizer T [options]"
    options.add_data(parser, "the images; with --import their tokens")
    options.add_out(parser, metavar="CACHE")
    parser.add_argument("--import", action="store_true", dest="imports", help="DATA holds tokens already")
    add_tokenizer(parser.add_argument_group("tokenizer"))
    crops = parser.add_argument_group("crops")
    add_crops(crops)
    crops.add_argument(
        "--crop-ranges", type=float, nargs="+", metavar="R", help="sizes of ten's larger crop (1.1 1.05)"
    )
    crops.add_argument("--random-crops", type=int, metavar="N", help="random or moved crops of an image (4)")
    crops.add_argument("--scale", type=float, nargs=2, metavar="X", help="range of a random crop's area (0.35 1)")
    crops.add_argument("--contrast", type=float, metavar="C", help="change of a random crop's brightness, below 1 (0)")
    crops.add_argument("--reach", type=int, metavar="P", help="largest move of a moved crop in pixels (2)")
    options.add_seed(crops, "random crops and of a fitted tokenizer")
    parser.set_defaults(**CROP_DEFAULTS)
    data = parser.add_argument_group("data")
    options.add_split(data)
    options.add_labels(data, column=False)
    machine = options.machine(parser)
    options.add_batch_size(machine, "crops")
    options.add_workers(machine)
    options.add_device(machine)
    options.add_dtype(machine, "the tokenizer", "faster and gives other tokens, one in eight of LlamaGen's")


def add_tokenizer(parser: options.Flags, more: str = "") -> None:
    """Add --tokenizer, and --patch, --vocab, --channels and --range of one that is fitted to the images.

    more: what else --tokenizer may be, for its help.
    """
    parser.add_argument(
        "--tokenizer",
        metavar="T",
        help=f"short name, official file or directory of a model; {FITTED}: k-means over patches of these images{more}",
    )
    parser.add_argument("--patch", type=int, metavar="P", help=f"side of a fitted patch in pixels ({PATCH})")
    parser.add_argument("--vocab", type=int, metavar="V", help=f"codes of a fitted or imported tokenizer ({CODES})")
    add_values(parser, "a fitted tokenizer")


def add_values(parser: options.Flags, what: str) -> None:
    """Add --channels and --range, of images that `what` is made for."""
    parser.add_argument(
        "--channels", type=int, metavar="C", help=f"channels of the images of {what} (as found: 1 or 3 of pictures)"
    )
    parser.add_argument(
        "--range",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="read the values of the files, which from LOW to HIGH become 0 to 1 (pictures of 8 bits)",
    )


def add_crops(parser: options.Flags) -> None:
    """Add --size and --crops."""
    size = f"pixels of a side, or height and width (a model's or a trained tokenizer's; fitted {FITTED_SIZE}; {SIZE})"
    parser.add_argument("--size", type=int, nargs="+", metavar="N", help=size)
    crops = ("centre", "flip", "ten", "random", "moved")
    parser.add_argument("--crops", choices=crops, default="flip", help="see `randfeat tokenize --help` (flip)")


def run(args: argparse.Namespace) -> int:
    """Encode or import, alone or as one of torchrun's processes."""
    from ..data.errors import reasons
    from ..data.sources import Source
    from ..data.store import SKIPPED
    from ..pretrain import tokenize_images
    from ..utils import distributed, progress

    with progress.warnings_as_lines(), distributed.ended_by_sigterm(), distributed.group():
        device = options.pick_device(args)
        source = options.open_data(args)
        if args.imports:
            store = _import(source, args, device)
        elif not isinstance(source, Source):
            raise ValueError(f"{args.data} holds tokens already: give --import to read them into a cache")
        else:
            tokenizer, size = tokenizer_of(source, args, device)
            crops, dtype = crops_of(args, size, tokenizer), options.dtype_of(args)
            store = tokenize_images(tokenizer, source, args.out, crops, args.batch_size, args.workers, dtype)
        skipped = store.skipped
        if distributed.rank() == 0:
            rows, columns = store.grid
            print(f"{len(store):,} images x {store.crops} crops of {rows} x {columns} tokens -> {args.out}")
            if skipped:
                print(f"{len(skipped):,} skipped, listed in {args.out / SKIPPED}: {reasons(skipped)}")
        return options.exit_code(skipped)


def tokenizer_of(source: Source, args: argparse.Namespace, device: torch.device) -> tuple[Tokenizer, tuple[int, int]]:
    """Return the tokenizer, and height and width of the crops."""
    from ..pretrain import fit_patches
    from ..tokenizers.base import checked_range
    from ..utils.checks import check_whole_number
    from ..weights.loading import load_tokenizer

    if args.tokenizer is None:
        raise ValueError(f"--tokenizer is missing: give a short name, a file, a model's directory, or {FITTED}")
    if args.tokenizer == FITTED:
        size, value_range = chosen_size(args, (FITTED_SIZE, FITTED_SIZE)), checked_range(args.range)
        patch = PATCH if args.patch is None else args.patch
        vocab = CODES if args.vocab is None else args.vocab
        for flag, count in (("--patch", patch), ("--vocab", vocab), ("--channels", args.channels)):
            if count is not None:
                check_whole_number(flag, count, 1)
        if size[0] % patch or size[1] % patch:
            raise ValueError(f"--size {size[0]} x {size[1]} is no multiple of --patch {patch}: choose another of them")
        how = patch, vocab, args.seed, args.channels, value_range
        return fit_patches(source, size, *how).to(device), size
    if args.tokenizer.lower() in (f"{FITTED}es", f"{FITTED}s", FITTED) and not Path(args.tokenizer).exists():
        raise ValueError(f"--tokenizer {args.tokenizer} is none: did you mean {FITTED}, k-means over these images?")
    if any(given is not None for given in (args.patch, args.vocab, args.channels, args.range)):
        raise ValueError(f"--patch, --vocab, --channels and --range are for --tokenizer {FITTED}: leave them out")
    tokenizer = load_tokenizer(args.tokenizer, device)
    return tokenizer, chosen_size(args, usual_size(args.tokenizer, tokenizer))


def usual_size(name: str, tokenizer: Tokenizer) -> tuple[int, int]:
    """Return height and width of a tokenizer's images where none are given: those of the model that it is part of, or
    those that it was trained on.
    """
    from .. import weights
    from ..weights import zoo

    directory = zoo.directory(name) if name in zoo.NAMES and not Path(name).exists() else Path(name)
    if (directory / weights.CONFIG).is_file() and "generator" in (config := weights.read_config(directory)):
        h, w = config["generator"]["grid"]
        return h * tokenizer.stride, w * tokenizer.stride
    if (record := training_of(name)) is not None:
        height, width = record["recipe"]["images"]["size"]
        return height, width
    return SIZE, SIZE


def training_of(name: str) -> dict[str, Any] | None:
    """Return the record of a tokenizer's training, None for one that `randfeat tokenizer train` has not written."""
    from .. import weights
    from ..pretrain.vq.run import FORMAT
    from ..utils import atomic

    directory = Path(name)
    inner = directory / weights.TOKENIZER
    return atomic.read_json((inner if inner.is_dir() else directory) / weights.TRAINING, FORMAT)


def chosen_size(args: argparse.Namespace, usual: tuple[int, int]) -> tuple[int, int]:
    """Return height and width of --size, else the usual ones."""
    if args.size is None:
        return usual
    if len(args.size) > 2 or min(args.size) < 1:
        raise ValueError("--size is one number of pixels from 1, or height and width")
    return args.size[0], args.size[-1]


def crops_of(args: argparse.Namespace, size: tuple[int, int], tokenizer: Tokenizer) -> Crops:
    """Return the crops of --crops, as the tokenizer reads images. size: height and width."""
    from ..pretrain import CentreCrops, MovedCrops, RandomCrops, TenCrops

    channels, value_range = tokenizer.channels, tokenizer.value_range
    if args.crops == "ten":
        return TenCrops(size, channels, tuple(args.crop_ranges), value_range=value_range)
    if args.crops == "random":
        how = args.random_crops, tuple(args.scale)
        seed, contrast = args.seed, args.contrast
        return RandomCrops(size, channels, *how, seed=seed, contrast=contrast, value_range=value_range)
    if args.crops == "moved":
        return MovedCrops(size, channels, args.random_crops, args.reach, seed=args.seed, value_range=value_range)
    return CentreCrops(size, channels, args.crops == "flip", value_range=value_range)


def _import(source: Source | TokenSource, args: argparse.Namespace, device: torch.device) -> TokenStore:
    from ..data.sources import TokenSource
    from ..pretrain import import_tokens
    from ..utils.checks import check_whole_number
    from ..weights.loading import load_tokenizer

    if not isinstance(source, TokenSource):
        raise ValueError(f"{args.data} holds images: leave --import out to tokenize them")
    if args.tokenizer is None and args.vocab is None:
        raise ValueError(
            "these tokens need their tokenizer: give --tokenizer T, or at least --vocab V, the number of its codes"
        )
    tokenizer = None if args.tokenizer is None else load_tokenizer(args.tokenizer, device)
    vocab = tokenizer.vocab_size if args.vocab is None else args.vocab  # type: ignore[union-attr]
    check_whole_number("--vocab", vocab, 1)
    return import_tokens(source, args.out, vocab, tokenizer, args.workers)
