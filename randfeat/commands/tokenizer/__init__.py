"""Train a tokenizer on your own images, and measure how well a tokenizer reconstructs images.

  randfeat tokenizer train DATA -o TOK --config tokenizer_tiny   train a network and its codes on the images of DATA
  randfeat tokenizer evaluate TOK DATA                           PSNR, SSIM, use of the codes, beside k-means patches

TOK then opens wherever a tokenizer is named: randfeat.load_tokenizer(TOK), `randfeat tokenize --tokenizer TOK` and
`randfeat pretrain --tokenizer TOK`.

examples:
  randfeat tokenizer train photos -o tok --config tokenizer_tiny --size 64
  randfeat tokenizer evaluate tok photos --beside patch -o tok_measured

`randfeat tokenizer ACTION --help` has the options of each.
"""

from __future__ import annotations

import argparse
from importlib import import_module

from .. import options

HOW_TO_RESUME = "Run the same command again: training goes on from its last checkpoint."

# action -> its summary; the module of the same name here has its help (the docstring), add_arguments and run
ACTIONS = {
    "train": "train a tokenizer on images; resumes where it was stopped",
    "evaluate": "measure reconstructions and the use of the codes, beside k-means patches and other tokenizers",
}


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """Add a subparser for each action."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, summary in ACTIONS.items():
        module = import_module(f".{name}", __package__)
        module.add_arguments(options.add_action(actions, name, summary, module.__doc__ or summary), name)


def run(args: argparse.Namespace) -> int | None:
    """Run one action."""
    from ...utils import progress

    with progress.warnings_as_lines():
        return import_module(f".{args.action}", __package__).run(args)
