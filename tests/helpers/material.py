"""Small training sets and runs on them, at the level of a module so that other processes can call them."""

import copy
import os
import signal
from functools import partial

import kills
import torch
from randfeat.pretrain import ControlObjective, RuntimeConfig, TrainingConfig, group, train
from randfeat.pretrain.parallel import full_tensor

from randfeat.models import create


class Gone(Exception):
    """End of a run in the middle, which is not told to it."""


def stop_at(step):
    def look(done):
        if done.step == step:
            raise Gone

    return look


def data(count=20, vocab=7, length=6):
    """(n, N) tokens that are their row in base V; labels 0, 1, 2, 0, 1, 2, ..."""
    rows = torch.arange(count)
    digits = [rows // vocab**i % vocab for i in range(length)]
    return torch.stack(digits, 1), rows % 3


def weights_of(model):
    return copy.deepcopy(model.state_dict())


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a) and a.keys() == b.keys()


LONG = TrainingConfig(steps=30, batch_size=8, learning_rate=0.01, warmup=2, eval_every=5, ema=0.5, label_dropout=0.2)


def a_model(dropout=0.2):
    torch.manual_seed(0)
    size = dict(embed_dim=16, depth=2, num_heads=2, ffn_dim=24, dropout=dropout)
    return create("randar", grid=(2, 3), vocab_size=7, num_classes=3, **size)


def pictured(tokens):
    """Tokens (B, 6) of `data` as images (B, 1, 4, 6), each of them two by two pixels."""
    return (tokens.view(-1, 1, 2, 3) / 6).repeat_interleave(2, 2).repeat_interleave(2, 3)


def run(directory, config=LONG, running=None, dropout=0.2, control=None, **told):
    """A training in a directory, from the same beginning each time: its history and its weights. control: "all" trains
    a model with control by edges, "alone" its adapter alone.
    """
    model, (tokens, labels) = a_model(dropout), data(50)
    if control:
        torch.nn.init.normal_(model.head.weight)  # zeros would let nothing through to the adapter
        model.add_control(kind="edges", patch=2, width=8, depth=1)
        told["objective"] = partial(ControlObjective, pixels=pictured, dropout=0.3)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(control == "all" or name.startswith("control."))
    running = running or RuntimeConfig(save_every=4)
    held_out = tokens[40:], labels[40:]
    history = train(model, tokens[:40], labels[:40], held_out, config, running, directory=directory, **told)
    return history, {name: full_tensor(value) for name, value in weights_of(model).items()}


def run_in_process(directory, config, running, weights, touches, number=0, torn=False):
    """`run` for a process that may die at a touch of a file, see `kills`: counts these, and leaves its weights in a
    file.
    """
    torch.set_num_threads(1)
    kills.die_at(directory, number, torn, partial(kills.count, touches))
    torch.save(run(directory, config, running)[1], weights)


def train_in_group(
    rank, world, port, directory, config, running, made, last=None, dropout=0.2, signalled=None, control=None
):
    """`run` for a process of several; the first leaves what it made in a file. All fail after step `last`; the second
    gets a signal after step `signalled`.
    """
    torch.set_num_threads(1)
    names = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=world, MASTER_ADDR="localhost", MASTER_PORT=port)
    os.environ.update({name: str(value) for name, value in names.items()})

    def look(step):
        if step.step == last:
            raise SystemExit(1)
        if step.step == signalled and rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with group():
        result = run(directory, config, running, dropout, control, on_step=look)
        if rank == 0:
            torch.save(result, made)
