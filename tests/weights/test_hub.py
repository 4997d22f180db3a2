"""Downloads from the Hugging Face hub and uploads to it, with a folder in its place."""

import os
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import official
import pytest
import tiny
import torch
from huggingface_hub import errors

from randfeat import Pipeline, Sampling, load, load_tokenizer, weights
from randfeat.models import SIZES
from randfeat.tokenizers import PatchTokenizer
from randfeat.weights import published

GRID = (2, 3)


@pytest.mark.parametrize(
    "name", ["randar-l-llamagen", "randar-l-maskgit", "arpg-l", "llamagen-xl", "lpd-l", "lpd-xl-512", "rar-b"]
)
def test_a_short_name_is_the_official_model(hub, monkeypatch, tmp_path, name):
    monkeypatch.chdir(tmp_path)
    row = published.MODELS[name]
    official.shrink(monkeypatch, row.size)
    made = official.publish(hub, name)
    opened = load(name)
    assert hub.asked == [(row.repository, row.file), (row.tokenizer.repository, row.tokenizer.file)]
    assert all(torch.equal(a, b) for a, b in zip(opened.generator.parameters(), made.parameters(), strict=True))
    assert opened.generator.grid == row.grid
    assert opened.generator.num_heads == SIZES[row.size][1]["num_heads"]
    assert opened.sampling == row.sampling
    opened.save("model")
    assert weights.read_config(Path("model"))["class_names"] == "imagenet-1k"
    assert opened.tokenizer.vocab_size == row.tokenizer.vocab_size
    assert opened.image_size == (16 * row.grid[0], 16 * row.grid[1])


def test_a_short_name_with_another_tokenizer_asks_for_one_file(hub, monkeypatch):
    official.shrink(monkeypatch, "arpg_l")
    official.publish(hub, "arpg-l")
    mine = official.tokenizer(16384, 2)
    assert load("arpg-l", tokenizer=mine).tokenizer is mine
    assert len(hub.asked) == 1


def test_a_file_on_the_disk_gets_its_tokenizer_from_the_hub(hub, monkeypatch, tmp_path):
    official.shrink(monkeypatch, "randar_l")
    official.publish(hub, "randar-l-maskgit")
    row = published.MODELS["randar-l-maskgit"]
    file = official.write(tmp_path / "mine.pt", official.state_of(official.generator(row)))
    assert load(file).tokenizer.vocab_size == 1024
    assert hub.asked == [(published.MASKGIT.repository, published.MASKGIT.file)]


@pytest.mark.parametrize("name", published.TOKENIZERS)
def test_the_names_of_tokenizers(hub, name):
    row = published.TOKENIZERS[name]
    multipliers = row.config["multipliers"]
    made = {"llamagen_vq": official.LlamaGenVQ, "maskgit_vq": official.MaskGITVQ}[row.model](
        vocab_size=row.vocab_size, code_dim=4, width=32, multipliers=multipliers, num_res_blocks=1
    )
    hub.publish(row.repository, row.file, official.state_of(made))
    assert load_tokenizer(name).config == made.config


def test_a_name_whose_file_is_another_model_is_refused(hub, monkeypatch):
    official.shrink(monkeypatch, "arpg_l")
    arpg, vq = published.MODELS["arpg-l"], published.VQ_16
    hub.publish(arpg.repository, arpg.file, official.state_of(tiny.model("randar", vocab_size=1024)))
    with pytest.raises(ValueError, match=r"arpg_300m.pt should be arpg-l, but looks like RandAR .* and 1,024 codes"):
        load("arpg-l")
    hub.publish(vq.repository, vq.file, official.state_of(official.tokenizer(16384, 8)))
    with pytest.raises(ValueError, match=r"should be llamagen-vq16, but looks like .* 8 pixels a token"):
        load_tokenizer("llamagen-vq16")


# our own format ---------------------------------------------------------------------------------------------


@pytest.fixture
def pushed(hub):
    made = Pipeline(PatchTokenizer(7, 2, 1), tiny.model("randar", GRID), ["cat", "dog", "cow"], None, Sampling(4))
    assert made.push_to_hub("me/randar", private=True, token="secret") == "https://huggingface.co/me/randar"
    return made


def test_what_is_pushed_is_opened(hub, pushed):
    assert (hub.private, hub.token) == (True, "secret")
    found = sorted(str(p.relative_to(hub.folder)) for p in hub.folder.rglob("*") if p.is_file())
    files = [f"{folder}{file}" for folder in ("", "tokenizer/") for file in ("config.json", "model.safetensors")]
    assert found == sorted(f"me/randar/{file}" for file in [*files, "README.md"])
    for opened in (load("me/randar"), Pipeline.from_pretrained("me/randar")):
        assert torch.equal(opened.sample(["cat"]), pushed.sample(["cat"]))
        assert opened.sampling == pushed.sampling
    assert load_tokenizer("me/randar").config == pushed.tokenizer.config


def test_a_pushed_model_has_a_card(hub, pushed):
    card = huggingface_hub.ModelCard.load(hub.folder / "me/randar/README.md")
    assert card.data.library_name == "randfeat"
    assert card.data.pipeline_tag == "image-feature-extraction"
    parameters = sum(p.numel() for p in pushed.generator.parameters())
    assert f"RandAR, {parameters:,} parameters" in card.text
    assert "| images | 4 x 6 pixels, grey |" in card.text
    assert "| tokens | 2 x 3, from 7 codes, tokenizer `patch` |" in card.text
    assert 'randfeat.load("me/randar")' in card.text
    assert "no record of the training" in card.text
    assert "{{" not in card.content
    assert "{%" not in card.content


def test_a_card_tells_how_the_model_was_trained(hub):
    training = {"steps": 12, "learning_rate": 0.01, "schedule": "cosine", "ema": 0.9}
    history = {"train": [[1, 2.0]], "validation": [[4, 1.5], [8, 1.25]], "kept_step": 8}
    record = {"recipe": {"training": training}, "history": history}
    Pipeline(PatchTokenizer(7, 2, 1), tiny.model("arpg", GRID), (), record).push_to_hub("me/arpg")
    text = (hub.folder / "me/arpg/README.md").read_text()
    expected = [
        "- steps: 12",
        "- learning rate: 0.01",
        "- step of the kept weights: 8",
        "| 4 | 1.5000 |",
        "| 8 | 1.2500 |",
    ]
    assert set(expected) <= set(text.splitlines())


def test_a_card_that_is_there_is_kept(hub, pushed):
    card = hub.folder / "me/randar/README.md"
    card.write_text("mine")
    pushed.push_to_hub("me/randar")
    assert card.read_text() == "mine"


def test_only_our_files_are_fetched_and_the_config_first(hub, pushed):
    (hub.folder / "me/randar/optimizer.bin").touch()
    load("me/randar")
    assert hub.asked[0] == ("me/randar", "config.json")
    assert not (hub.cache / "me/randar/optimizer.bin").exists()


@pytest.mark.parametrize("config", [None, '{"model_type": "bert"}', "[]", "{"])
def test_a_repository_of_another_format_is_refused_before_its_weights_come(hub, config):
    folder = hub.folder / "me" / "bert"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").touch()
    if config is not None:
        (folder / "config.json").write_text(config)
    for opens in (load, load_tokenizer):
        with pytest.raises(ValueError, match=r"holds no model of randfeat|not valid JSON|does not describe a model"):
            opens("me/bert")
    assert ("me/bert", "model.safetensors") not in hub.asked


# what goes wrong --------------------------------------------------------------------------------------------


def test_what_is_not_there(hub):
    with pytest.raises(FileNotFoundError, match=r"neither a file or directory my/model here nor a public repository"):
        load("my/model")
    (hub.folder / "hp-l33/ARPG").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"hp-l33/ARPG on the hub has no arpg_300m.pt"):
        load("arpg-l")


class ReadTimeout(Exception):
    """Error of the HTTP library, which is another one in each version of huggingface_hub."""


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (official.missing(errors.GatedRepoError), PermissionError, "asks for consent: accept its terms at https://"),
        (official.missing(errors.RepositoryNotFoundError), FileNotFoundError, "nor a public repository of this name"),
        (errors.LocalEntryNotFoundError("no"), ConnectionError, "is not in the cache and the hub could not be reached"),
        (errors.OfflineModeIsEnabled("no"), ConnectionError, "HF_HUB_OFFLINE"),
        (errors.HFValidationError("bad\nid"), ValueError, "is no id on the hub, expected owner/name: bad"),
        (official.missing(errors.HfHubHTTPError), ConnectionError, "the hub refused .*: 404 Client Error"),
        (ReadTimeout("slow\nline"), ConnectionError, r"could not be transferred \(ReadTimeout: slow\)"),
        (OSError(28, "No space left on device"), ConnectionError, r"No space left on device\): check .* the disk"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_every_error_of_the_hub_is_one_sentence(hub, monkeypatch, error, kind, says):
    def fail(*args, **kwargs):
        raise error

    for name in ("hf_hub_download", "snapshot_download"):
        monkeypatch.setattr(huggingface_hub, name, fail)
    monkeypatch.setattr(hub, "create_repo", fail)
    model = Pipeline(PatchTokenizer(7, 2, 1), tiny.model("randar", GRID))
    for source in ("arpg-l", "me/model", None):
        with pytest.raises(kind, match=says) as raised:
            load(source) if source else model.push_to_hub("me/model")
        assert len(str(raised.value).splitlines()) == 1
        assert raised.value.__cause__ is error


def test_the_real_library_without_a_network(tmp_path):
    code = """
import randfeat
for source in ("arpg-l", "me/model"):
    try: randfeat.load(source)
    except ConnectionError as error: print(error)
"""
    alone = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=alone, capture_output=True, text=True, check=True)
    said = done.stdout.splitlines()
    assert len(said) == 2
    assert all("is not in the cache and the hub could not be reached" in line for line in said)


def test_opening_a_directory_does_not_import_the_hub(tmp_path):
    Pipeline(PatchTokenizer(7, 2, 1), tiny.model("randar", GRID)).save(tmp_path / "model")
    code = f"import sys, randfeat; randfeat.load({str(tmp_path / 'model')!r}); print('huggingface_hub' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
