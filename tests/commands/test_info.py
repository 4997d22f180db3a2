"""`randfeat info`: every kind of source, and that nothing is downloaded."""

import official
import pytest
import tiny
import torch

from randfeat import Pipeline, Sampling, cli, load
from randfeat.inference.schedules import Guidance
from randfeat.models import SIZES
from randfeat.tokenizers import PatchTokenizer
from randfeat.weights import published, zoo

GRID = (2, 3)


@pytest.fixture
def info(capsys, hub, monkeypatch):
    """The lines that the command prints, as a dict of lists."""

    def fail(*args, **kwargs):
        raise AssertionError("info downloads nothing")

    def lines(source):
        with monkeypatch.context() as here:
            here.setattr("huggingface_hub.hf_hub_download", fail)
            here.setattr("huggingface_hub.snapshot_download", fail)
            assert cli.main(["info", str(source)]) == 0, capsys.readouterr().err
        found = {}
        for line in capsys.readouterr().out.splitlines():
            name, _, value = line.partition("  ")
            found.setdefault(name, []).append(value.strip())
        return found

    return lines


@pytest.mark.parametrize("name", published.MODELS)
def test_a_short_name_before_it_is_downloaded(info, name):
    row, said = published.MODELS[name], info(name)
    codes = row.tokenizer
    urls = [f"https://huggingface.co/{part.repository}/blob/main/{part.file}" for part in (row, codes)]
    assert said["on the hub"] == urls
    assert said["in the cache"] == ["no, it would be downloaded"] * 2
    assert said["size"] == [f"{row.size}, {SIZES[row.size][1]['num_heads']} heads"]
    assert said["vocabulary"] == [f"{codes.vocab_size:,}"]
    assert said["grid"] == ["{0} x {0} tokens".format(*row.grid)]
    assert said["tokenizer"][0].startswith(codes.name)
    assert "dtype" not in said  # only the file knows


def test_what_is_said_of_published_sampling(info):
    assert info("arpg-l")["sampling"] == ["steps 64, schedule arccos, guidance 5.0"]
    assert info("randar-l-maskgit")["sampling"] == ["steps 88, schedule cosine-randar, guidance 1.0 to 4.0"]
    assert info("llamagen-3b")["sampling"] == ["steps one a token, schedule one-by-one, guidance 1.65"]
    assert info("llamagen-3b")["parameters"] == ["3,096,659,200"]


@pytest.mark.parametrize("name", published.TOKENIZERS)
def test_a_tokenizer(info, name):
    said = info(name)
    assert said["vocabulary"] == [f"{published.TOKENIZERS[name].vocab_size:,}"]
    assert "grid" not in said


def test_a_short_name_after_it_is_downloaded(info, hub, monkeypatch):
    official.shrink(monkeypatch, "arpg_l")
    made = official.publish(hub, "arpg-l")
    path = hub.hf_hub_download(published.MODELS["arpg-l"].repository, "arpg_300m.pt")
    said = info("arpg-l")
    assert said["in the cache"] == [path, "no, it would be downloaded"]
    assert said["file"] == [path]
    assert said["dtype"] == ["float32"]
    assert said["parameters"] == [f"{sum(p.numel() for p in made.parameters()):,}"]
    assert said["weights under"] == ["model"]
    assert said["beside them"] == ["optimizer, steps, args"]
    assert said["grid"] == ["16 x 16 tokens"]


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_file_of_no_published_size(info, tmp_path, build_official, suffix):
    made = build_official()
    state = {name: value.bfloat16() for name, value in official.state_of(made).items()}
    said = info(official.write(tmp_path / f"mine{suffix}", state))
    assert said["model"][0].endswith("and 7 codes")
    assert said["dtype"] == ["bfloat16"]
    assert said["parameters"] == [f"{sum(p.numel() for p in made.parameters()):,}"]
    assert said["size"] == ["none that is published: give num_heads to randfeat.load"]
    grid = "16 x 16 tokens unless randfeat.load is given another"
    if not made.rotary:  # learned positions tell how many there are
        grid = "6 tokens, a square unless randfeat.load is given another grid"
    assert said["grid"] == [grid]
    assert said["tokenizer"] == ["none that is published: give a tokenizer to randfeat.load"]
    assert said["weights under"] == ["no name, the file holds nothing else"]


def test_a_file_of_a_tokenizer(info, tmp_path):
    made = official.tokenizer()
    said = info(official.write(tmp_path / "vq.pt", official.state_of(made), "model"))
    assert said["model"] == ["LlamaGen's VQ tokenizer of 7 codes, 16 pixels a token"]
    assert said["parameters"] == [f"{sum(p.numel() for p in made.parameters()):,}"]


def test_our_own_directory_and_its_repository(info, tmp_path, hub):
    how = Sampling(5, "arccos", Guidance(2.0, interval=(0.1, 0.9)), sweeps=1)
    made = Pipeline(PatchTokenizer(7, 2, 1), tiny.model("randar", GRID), ["cat", "dog", "cow"], {"steps": 3}, how)
    made.save(tmp_path / "model")
    made.push_to_hub("me/randar")
    said = info(tmp_path / "model")
    assert said["generator"][0].startswith("name randar, grid [2, 3], vocab_size 7, num_classes 3")
    assert said["class names"] == ["cat, dog, cow"]
    assert said["training"] == ["steps 3"]
    assert said["sampling"] == ["steps 5, schedule arccos, guidance 2.0 from 0.1 to 0.9, sweeps 1"]
    assert said["tokenizer"] == ["name patch, vocab_size 7, patch 2, channels 1"]
    assert len(said["parameters"]) == 2
    assert info(tmp_path / "model" / "tokenizer")["tokenizer"] == said["tokenizer"]
    assert info(tmp_path) == said  # a training, with its model
    (tmp_path / "model").rename(tmp_path / "other")
    (tmp_path / "other" / "tokenizer").rename(tmp_path / "tokenizer")
    assert info(tmp_path)["tokenizer"] == said["tokenizer"]  # the training of a tokenizer

    before = info("me/randar")
    assert before["in the cache"] == ["no, it would be downloaded"] * 4
    assert "generator" not in before
    hub.hf_hub_download("me/randar", "config.json")
    after = info("me/randar")
    assert after["in the cache"][0] != "no, it would be downloaded"
    assert after["generator"] == said["generator"]


def test_all_names_are_listed(capsys, hub):
    assert cli.main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("  ")[0] == "model of the package"
    rows = {line.split()[0]: line for line in lines[1 : 1 + len(zoo.NAMES)]}
    assert list(rows) == [*zoo.NAMES]
    for name, row in rows.items():
        model = load(name)
        assert f" {sum(p.numel() for p in model.generator.parameters()):,} " in row
        assert "28 x 28 grey" in row
        assert row.endswith(
            "likelihood of classes" if model.class_names else "none     features, learnt without labels"
        )
    text = "\n".join(lines[len(rows) + 1 :])
    assert all(name in text for name in (*published.MODELS, *published.TOKENIZERS))
    assert "missing" not in text


def test_models_that_are_missing_are_listed(capsys, monkeypatch, tmp_path, hub):
    monkeypatch.setattr(zoo.resources, "files", lambda package: tmp_path)
    assert cli.main(["info"]) == 0
    assert f"missing from this installation: {', '.join(zoo.NAMES)}\n" in capsys.readouterr().out


def test_a_model_of_the_package_and_its_card(info, capsys):
    said = info("fashion-arpg-free")
    assert said["generator"][0].startswith("name arpg, grid [7, 7], vocab_size 512, num_classes 0")
    assert said["dtype"] == ["float16"]
    assert said["class names"] == ["none"]
    assert cli.main(["info", "fashion-arpg-free"]) == 0
    card = capsys.readouterr().out.partition("\n\n")[2]
    assert card.startswith("# fashion-arpg-free\n")
    assert "## Licence\n" in card
    assert "library_name" not in card  # the header is for the hub


def test_what_is_wrong_is_one_sentence(tmp_path, capsys):
    torch.save({"model": {"bert.weight": torch.ones(2)}}, tmp_path / "bert.pt")
    (tmp_path / "config.json").write_text("{")
    (tmp_path / "model.safetensors").touch()
    sources = {"arpgl": "did you mean arpg-l?", tmp_path / "bert.pt": "no model that randfeat knows"}
    for source, says in (sources | {tmp_path: "is not valid JSON", tmp_path / "a.bin": "there is no file"}).items():
        assert cli.main(["info", str(source)]) == 1
        said = capsys.readouterr().err
        assert says in said
        assert len(said.splitlines()) == 1


def test_a_long_record_of_training_is_one_line(info, tmp_path):
    history = {"train": [[step, 1.0] for step in range(999)], "validation": [[5, 2.5], [10, 2.25]], "kept_step": 10}
    record = {"recipe": {"model": "randar", "training": {"steps": 999, "betas": [0.9, 0.95]}}, "history": history}
    made = Pipeline(PatchTokenizer(7, 2, 1), tiny.model("randar", GRID), ["cat", "dog", "cow"], record)
    made.save(tmp_path / "model")
    assert info(tmp_path / "model")["training"] == ["model randar, steps 999, kept step 10, held-out loss 2.25"]
