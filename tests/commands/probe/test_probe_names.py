"""Names of models in tables: the last two parts of a path, or --name."""

from __future__ import annotations

import pytest
from probing import SPEC, by_name, probe

from randfeat.commands.options import short_name

MORE = ["--spec", SPEC, "--tasks", "knn"]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("arpg-l", "arpg-l"),
        ("/data/runs/photos/model", "photos/model"),
        ("../model/", "model"),
        ("/model", "model"),
        ("random:/data/runs/photos/model", "random:photos/model"),
        ("timm:vit_tiny_patch16_224@/some/where/else/best.pth", "timm:vit_tiny_patch16_224@else/best.pth"),
        ("timm:vit_tiny_patch16_224?img_size=64,crop_pct=1", "timm:vit_tiny_patch16_224?img_size=64,crop_pct=1"),
        ("open_clip:ViT-B-32@/a/b/c.pt", "open_clip:ViT-B-32@b/c.pt"),
        ("/a/b/train.store,/a/b/test.store", "b/train.store,b/test.store"),
        ("owner/name", "owner/name"),
    ],
)
def test_a_name_is_the_last_two_parts_of_the_path(text, name):
    assert short_name(text) == name


def test_reports_name_models_by_their_paths_or_as_the_user_does(model, folder, tmp_path):
    what = (model, f"random:{model}")
    assert probe("compare", *what, out=tmp_path / "paths", more=["--data", folder, *MORE]) == 0
    short = "/".join(model.parts[-2:])
    assert {("knn", f"{short} {SPEC}"), ("knn", f"random:{short} {SPEC}")} <= set(by_name(tmp_path / "paths"))
    named = ["--data", folder, *MORE, "--name", "ours", "untrained"]
    assert probe("compare", *what, out=tmp_path / "named", more=named) == 0
    assert {("knn", "ours"), ("knn", "untrained")} <= set(by_name(tmp_path / "named"))
    assert "<summary>ours" in (tmp_path / "named" / "report.html").read_text()


def test_random_weights_have_the_name_of_their_model(model, folder, tmp_path):
    more = ["--spec", SPEC, "--baselines", "--no-search", "--name", "ours"]
    assert probe("knn", model, folder, out=tmp_path, more=more) == 0
    assert {("knn", "ours"), ("knn", "random:ours"), ("knn", "tokens of ours")} <= set(by_name(tmp_path))


def test_every_model_has_one_name(model, folder, tmp_path, capsys):
    for names, says in ((["a"], "--name gives 1 names to 2 models"), (["a", "a"], "gives the same name twice (a, a)")):
        more = ["--data", folder, *MORE, "--name", *names]
        assert probe("compare", model, f"random:{model}", out=tmp_path / "out", more=more) == 1
        assert says in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
