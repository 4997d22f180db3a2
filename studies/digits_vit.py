"""Small ViT of timm, trained with labels on the training digits, for comparison with the demo's models:

    randfeat demo --train
    python -m studies.digits_vit digits_demo/digits digits_vit.safetensors
    randfeat probe compare digits_demo/models/randar_free digits_demo/models/raster_free \\
        timm:test_vit@digits_vit.safetensors random:timm:test_vit \\
        --data digits_demo/digits --group writer --baselines -o compared \\
        --spec raster/causal/token/L3/grid4/mean raster/causal/token/L5/grid4/mean pooled L2/mean

test_vit has 0.31 million parameters, about as many as the demo's RandAR. Five minutes on one core.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from randfeat.data.sources import Source, open_source
from randfeat.features.timm_encoder import EvaluationTransform

NAME = "test_vit"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="images with labels and a part `train`")
    parser.add_argument("out", type=Path, metavar="FILE", help="file of the weights, .safetensors")
    parser.add_argument("--epochs", type=int, default=40)
    args = parser.parse_args()
    source = open_source(args.data, "train")
    if not isinstance(source, Source) or source.labels is None:
        raise SystemExit(f"{args.data} has no pictures with labels: give a data set with classes")
    labels = torch.tensor(source.labels)
    torch.manual_seed(0)
    model = timm.create_model(NAME, num_classes=int(labels.max()) + 1).train()
    config = timm.data.resolve_model_data_config(model)
    transform = EvaluationTransform(config)
    pixels = torch.from_numpy(np.stack([transform(source.read(i)) for i in range(len(source))]))
    mean, std = (torch.tensor(config[name])[:, None, None] for name in ("mean", "std"))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.05)
    batches = [rows for _ in range(args.epochs) for rows in torch.randperm(len(labels)).split(32)]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=len(batches))
    for step, rows in enumerate(batches):
        logits = model((pixels[rows].float() / 255 - mean) / std)
        loss = F.cross_entropy(logits, labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 20 == 0 or step == len(batches) - 1:
            right = float((logits.argmax(1) == labels[rows]).float().mean())
            state = f"loss {loss.item():.3f}, {100 * right:.0f} % of the batch right"
            print(f"step {step} of {len(batches)}: {state}", flush=True)
    save_file(model.state_dict(), args.out)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters -> {args.out}")


if __name__ == "__main__":
    main()
