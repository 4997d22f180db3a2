"""Judge of samples: a small convolutional network that names the class of an image, and whose features are compared.

It is trained on the images that generators learn from, as long as the recipe below says; nothing is chosen on test.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save
from torch import Tensor, nn

from randfeat.utils import atomic, progress
from randfeat.utils.learning_rates import warmup_decay
from randfeat.weights import fingerprint
from studies.reading.material import as_pixels

from .images import Fashion
from .units import Place, keep, kept

PART = "judge"
WIDTHS = (32, 64, 128)  # channels of the convolutions
FEATURES = 128  # values that the Fréchet distance is of
EPOCHS, BATCH, RATE, DECAY, DROPOUT, SMOOTHING = 9, 128, 3e-3, 0.05, 0.3, 0.05
SHIFT = 2  # pixels, at most, that a training image is moved by
LEAST = 0.93  # accuracy on test images from which it may judge samples
AT_ONCE = 500


class Judge(nn.Module):
    """Three convolutions with batch norm and pooling, a hidden layer, and the logits of the classes.

    An image and its mirror image are read, and the mean of both is taken.
    """

    def __init__(self, classes: int, side: int = 28, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, width in zip((1, *widths), widths, strict=False):
            layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.MaxPool2d(2), nn.BatchNorm2d(width)]
            layers.append(nn.ReLU())
            side //= 2
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(DROPOUT))
        self.hidden = nn.Sequential(nn.Linear(widths[-1] * side**2, FEATURES), nn.BatchNorm1d(FEATURES), nn.ReLU())
        self.head = nn.Sequential(nn.Dropout(DROPOUT), nn.Linear(FEATURES, classes))

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (B, classes) of images (B, 1, H, W) from 0 to 1."""
        return self.head(self.hidden(self.body(images - 0.3)))

    @torch.no_grad()
    def read(self, images: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Return classes, int64 (n,), and features, float32 (n, F), of images (n, 1, H, W) from 0 to 1."""
        self.eval()
        found, features = [], []
        for part in images.split(AT_ONCE):
            both = self.hidden(self.body(torch.cat((part, part.flip(3))) - 0.3))
            features.append(both.unflatten(0, (2, -1)).mean(0))
            found.append(self.head(both).softmax(1).unflatten(0, (2, -1)).mean(0).argmax(1))
        return torch.cat(found).numpy(), torch.cat(features).numpy()

    def classes(self, images: Tensor) -> np.ndarray:
        """Return the class of each image, int64 (n,)."""
        return self.read(images)[0]


def moved(images: Tensor, draw: torch.Generator) -> Tensor:
    """Return images (B, 1, H, W), moved by up to `SHIFT` pixels, half of them mirrored; zeros fill the gaps."""
    count, _, height, width = images.shape
    padded = F.pad(images, (SHIFT,) * 4)[:, 0]
    down, right = torch.randint(2 * SHIFT + 1, (2, count, 1, 1), generator=draw)
    rows = down + torch.arange(height)[:, None]
    columns = torch.arange(width).expand(count, 1, -1)
    columns = torch.where(torch.rand(count, 1, 1, generator=draw) < 0.5, columns.flip(2), columns) + right
    return padded[torch.arange(count)[:, None, None], rows, columns].unsqueeze(1)


def train(images: Tensor, labels: Tensor, epochs: int = EPOCHS, seed: int = 0) -> Judge:
    """Return a judge trained on images (n, 1, H, W) from 0 to 1 with labels (n,)."""
    draw = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        judge = Judge(int(labels.max()) + 1, images.shape[2]).to(memory_format=torch.channels_last).train()
        optimizer = torch.optim.AdamW(judge.parameters(), weight_decay=DECAY)
        each = math.ceil(len(images) / BATCH)
        with progress.bar(epochs * each, "judge", "step") as bar:
            for step in range(epochs * each):
                if step % each == 0:
                    order = torch.randperm(len(images), generator=draw).split(BATCH)
                rows = order[step % each]
                optimizer.param_groups[0]["lr"] = RATE * warmup_decay(step, epochs * each, 0.1 * epochs * each)
                optimizer.zero_grad()
                logits = judge(moved(images[rows], draw))
                F.cross_entropy(logits, labels[rows], label_smoothing=SMOOTHING).backward()
                optimizer.step()
                bar.update()
    return judge.eval()


def opened(path: Path, images: np.ndarray, labels: np.ndarray, epochs: int = EPOCHS) -> Judge:
    """Return the judge in a file, which is trained if need be. images: uint8 (n, H, W), of training."""
    if not path.exists():
        made = train(torch.from_numpy(images).unsqueeze(1).float() / 255, torch.from_numpy(labels), epochs)
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_bytes(path, save({name: one.contiguous() for name, one in made.state_dict().items()}))
    judge = Judge(int(labels.max()) + 1, images.shape[1])
    judge.load_state_dict(load_file(path))
    return judge.eval()


def run(place: Place, data: Fashion) -> Judge:
    """Return the judge of a run, and keep its record with the scores of test images."""
    made = opened(place.work / "judge.safetensors", data.images[data.fit], data.labels[data.fit])
    path, key = place.record(PART, PART), fingerprint(made)[:12]
    if kept(path, key) is None:
        began = time.process_time()
        right = {
            name: made.classes(as_pixels(data.images[rows])) == data.labels[rows]
            for name, rows in (("right", data.test), ("validation", data.chosen))
        }
        record = {
            "key": key,
            "parameters": sum(one.numel() for one in made.parameters()),
            "epochs": EPOCHS,
            "train": len(data.fit),
            "test": len(data.test),
            "means": {name: float(one.mean()) for name, one in right.items()},
            "seconds": round(time.process_time() - began, 1),
        }
        keep(path, record, right)
        print(f"judge: {record['means']}", flush=True)
    return made
