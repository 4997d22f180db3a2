"""Small text-image model of open_clip with random weights, saved in each of the forms that users have."""

from __future__ import annotations

import json

import open_clip
import torch

NAME = "ViT-tiny"
CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}


def save(folder, monkeypatch, seed=0):
    """Let open_clip know the architecture, and save it; return model, `open_clip:NAME@FILE` and `open_clip:DIR`."""
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, NAME, CONFIG)
    torch.manual_seed(seed)
    model = open_clip.create_model(NAME, pretrained_text=False).eval()
    torch.nn.init.normal_(model.visual.positional_embedding)
    torch.nn.init.normal_(model.positional_embedding)
    directory = folder / "clip"
    directory.mkdir()
    settings = {"model_cfg": CONFIG, "preprocess_cfg": model.visual.preprocess_cfg}
    (directory / "open_clip_config.json").write_text(json.dumps(settings))
    torch.save({"epoch": 3, "state_dict": model.state_dict()}, directory / "open_clip_pytorch_model.bin")
    return model, f"open_clip:{NAME}@{directory / 'open_clip_pytorch_model.bin'}", f"open_clip:{directory}"
