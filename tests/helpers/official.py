"""Small files in the formats of the official checkpoints, and a hub that serves them."""

from __future__ import annotations

import argparse
import shutil
import zlib
from pathlib import Path

import huggingface_hub
import tiny
import torch
from huggingface_hub import errors
from safetensors.torch import save_file

from randfeat import models, weights
from randfeat.tokenizers import LlamaGenVQ, MaskGITVQ, Tokenizer
from randfeat.weights import published

CONTAINERS = (None, "model", "module", "state_dict", "ema")


def state_of(model) -> dict[str, torch.Tensor]:
    """Return a state as the official code saves it, with entries that nothing here reads."""
    unused = {name: torch.zeros(9) for name in model.unused}
    return {name: value.detach().clone() for name, value in weights.to_official(model).items()} | unused


def write(path: Path, state: dict, container: str | None = None, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file({name: value.contiguous() for name, value in state.items()}, path)
    elif container is None:
        torch.save(state, path, **options)
    else:
        beside = {"optimizer": {"state": {}, "lr": 0.1}, "steps": 3, "args": argparse.Namespace(gpt_model="tiny")}
        torch.save({container: state, **beside}, path, **options)
    return path


def tokenizer(vocab_size: int = 7, stride: int = 16, kind: type[Tokenizer] = LlamaGenVQ, seed: int = 0) -> Tokenizer:
    torch.manual_seed(seed)
    multipliers = [*published.VQ_16.config["multipliers"]] if stride == 16 else [1] * stride.bit_length()
    made = kind(vocab_size=vocab_size, code_dim=4, width=32, multipliers=multipliers, num_res_blocks=1)
    return made.eval().requires_grad_(False)


def shrink(monkeypatch, size: str, side: int = 16) -> str:
    """Makes a published size tiny, so that a whole file of it is small."""
    model, _ = models.SIZES[size]
    monkeypatch.setitem(models.SIZES, size, (model, {"embed_dim": side, "depth": 2, "num_heads": 2}))
    return size


def generator(row: published.PublishedModel, seed: int = 0) -> models.Generator:
    """Return the contents of the file of a row whose size has been shrunk."""
    name, size = models.SIZES[row.size]
    return tiny.model(name, row.grid, seed, vocab_size=row.tokenizer.vocab_size, num_classes=1000, ffn_dim=None, **size)


def wave(name: str, shape: torch.Size) -> torch.Tensor:
    """Return weights by a formula, of a scale that keeps activations alive: recorded outputs need no file of them."""
    angles = 12.9898 * torch.arange(shape.numel(), dtype=torch.float64) + zlib.crc32(name.encode()) % 1000
    values = 2 * (437.585 * torch.sin(angles) % 1) - 1
    if len(shape) > 1:
        values *= 1 if "embedding" in name else 2.2 * shape[1:].numel() ** -0.5
    else:
        values = 0.1 * values + ("norm" in name and name.endswith("weight"))
    return values.float().view(shape)


class Hub:
    """Folder in place of the hub: `folder` holds owner/name/file, `cache` the downloaded files."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder, self.cache, self.asked = folder, cache, []

    def publish(self, repository: str, file: str, state: dict, container: str | None = None) -> Path:
        return write(self.folder / repository / file, state, container)

    def hf_hub_download(self, repo_id: str, filename: str) -> str:
        self.asked.append((repo_id, filename))
        if not (self.folder / repo_id).is_dir():
            raise missing(errors.RepositoryNotFoundError)
        if not (self.folder / repo_id / filename).is_file():
            raise missing(MISSING_FILE)
        target = self.cache / repo_id / filename
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.folder / repo_id / filename, target)
        return str(target)

    def snapshot_download(self, repo_id: str, allow_patterns: list[str]) -> str:
        for name in allow_patterns:
            if (self.folder / repo_id / name).is_file() or not (self.folder / repo_id).is_dir():
                self.hf_hub_download(repo_id, name)
        (self.cache / repo_id).mkdir(parents=True, exist_ok=True)
        return str(self.cache / repo_id)

    def try_to_load_from_cache(self, repo_id: str, filename: str) -> str | None:
        path = self.cache / repo_id / filename
        return str(path) if path.is_file() else None

    # what pushes use of huggingface_hub.HfApi

    def __call__(self, token: str | None = None) -> Hub:
        self.token = token
        return self

    def create_repo(self, repo_id: str, private: bool | None = None, exist_ok: bool = False) -> str:
        (self.folder / repo_id).mkdir(parents=True, exist_ok=exist_ok)
        self.private = private
        return f"https://huggingface.co/{repo_id}"

    def file_exists(self, repo_id: str, filename: str) -> bool:
        return (self.folder / repo_id / filename).is_file()

    def upload_folder(self, repo_id: str, folder_path: Path, commit_message: str) -> None:
        shutil.copytree(folder_path, self.folder / repo_id, dirs_exist_ok=True)

    def install(self, monkeypatch) -> Hub:
        for name in ("hf_hub_download", "snapshot_download", "try_to_load_from_cache"):
            monkeypatch.setattr(huggingface_hub, name, getattr(self, name))
        monkeypatch.setattr(huggingface_hub, "HfApi", self)
        monkeypatch.setattr("randfeat.utils.network.reachable", lambda address: True)
        return self


# older versions of the package have the general one alone
MISSING_FILE = getattr(errors, "RemoteEntryNotFoundError", errors.EntryNotFoundError)


def missing(error: type[Exception]) -> Exception:
    """An error of the hub, made without the answer of a server."""
    made = error.__new__(error)
    made.args = ("404 Client Error",)
    return made


def publish(hub: Hub, name: str) -> models.Generator:
    """Publishes a row of the tables, shrunk, under its official names; returns the model in it."""
    row = published.MODELS[name]
    made, codes = generator(row), row.tokenizer
    container = None if row.file.endswith(".safetensors") else "model"
    hub.publish(row.repository, row.file, state_of(made), container)
    kind = MaskGITVQ if codes is published.MASKGIT else LlamaGenVQ
    vq = tokenizer(codes.vocab_size, kind=kind)
    hub.publish(codes.repository, codes.file, state_of(vq), None if kind is MaskGITVQ else "model")
    return made
