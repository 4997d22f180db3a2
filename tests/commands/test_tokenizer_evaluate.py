"""`randfeat tokenizer evaluate` from the command line."""

from __future__ import annotations

import csv
import json
import re

import damaged
import numpy as np
import official
import pytest
import torch
from bands import write_bands
from PIL import Image
from pipelines import make_sampler
from randfeat.pretrain import fit_patches
from randfeat.probes.tasks.reconstruction import border_ratio, image_errors

from randfeat import cli, load_tokenizer, weights
from randfeat.data.images import CentreCrop
from randfeat.data.sources import open_source
from randfeat.tokenizers import LlamaGenVQ, Tokenizer, name_of

FAST = ["--device", "cpu", "--workers", "0"]


def save(tokenizer: Tokenizer, directory):
    directory.mkdir(parents=True)
    weights.write(directory, {"name": name_of(tokenizer), **tokenizer.config}, tokenizer.state_dict())
    return directory


def small_vq(channels: int = 3, value_range=None) -> LlamaGenVQ:
    torch.manual_seed(0)
    made = LlamaGenVQ(16, 4, 32, (1, 1, 1), 1, 32, channels=channels, value_range=value_range)
    return made.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Digits as PNG files in train/ and test/, and the directory of a patch tokenizer that is fitted to train."""
    from sklearn.datasets import load_digits

    root = tmp_path_factory.mktemp("data")
    for number, pixels in enumerate(load_digits().images[:120]):
        path = root / "digits" / ("train" if number < 80 else "test") / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 15.9).astype(np.uint8)).save(path)
    save(fit_patches(open_source(root / "digits", "train"), (8, 8), 2, 12), root / "tok")
    return root


def evaluate(*words):
    return cli.main(["tokenizer", "evaluate", *map(str, words), *FAST])


def pixels_of(data, split, size, channels):
    source, crop = open_source(data, split), CentreCrop(size, channels)
    read = np.stack([crop.of(source, i) for i in range(len(source))])
    return torch.from_numpy(read).movedim(-1, 1).float() / 255


def test_numbers_are_those_of_the_tokenizer_itself(digits, capsys):
    words = [digits / "tok", digits / "digits", "--split", "test", "--size", 8, "--format", "json"]
    assert evaluate(*words, "--batch-size", 7) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["data"]["images"], record["data"]["skipped"], record["data"]["size"]) == (40, 0, [8, 8])
    (found,) = record["tokenizers"].values()
    tokenizer, pixels = load_tokenizer(digits / "tok"), pixels_of(digits / "digits", "test", (8, 8), 1)
    tokens = tokenizer.encode(pixels)
    errors = image_errors(pixels.numpy(), tokenizer.decode(tokens).numpy(), 2)
    for name in ("psnr", "ssim", "l1", "mse"):
        assert found[name]["value"] == pytest.approx(getattr(errors, name).mean(), rel=1e-5)
        assert found[name]["n"] == 40
    assert found["codes"]["tokens"] == 40 * 16
    assert found["codes"]["used"] == len(tokens.unique())
    assert found["bits_a_pixel"] == pytest.approx(np.log2(12) / 4)
    assert found["border_ratio"]["value"] == pytest.approx(border_ratio(tokenizer.decode(tokens).numpy(), 2).value)
    assert found["real_border_ratio"]["value"] == pytest.approx(border_ratio(pixels.numpy(), 2).value)
    assert found["fingerprint"] == weights.fingerprint(tokenizer)


def test_patches_beside_it_are_fitted_to_train(digits, tmp_path, capsys):
    vq = save(small_vq(channels=1), tmp_path / "vq")
    words = [vq, digits / "digits", "--split", "test", "--size", 8, "-o", tmp_path / "out"]
    assert evaluate(*words, "--beside", "patch", digits / "tok") == 0
    shown = capsys.readouterr().out
    assert (tmp_path / "out" / "table.md").read_text() == shown
    assert "patch: k-means over patches of 4 x 4 pixels of" in shown
    assert "split train" in shown
    record = json.loads((tmp_path / "out" / "reconstruction.json").read_text())
    one, patch, other = record["tokenizers"].values()
    assert one["bits_a_pixel"] == patch["bits_a_pixel"] == 4 / 16
    assert one["tokens_an_image"] == patch["tokens_an_image"] == 4
    assert other["tokens_an_image"] == 16
    fitted = fit_patches(open_source(digits / "digits", "train"), (8, 8), 4, 16, channels=1)
    assert patch["fingerprint"] == weights.fingerprint(fitted)
    beside = record["comparisons"][0]
    assert (beside["a"], beside["b"]) == ("/".join(vq.parts[-2:]), "patch")
    assert beside["mse_ratio"]["value"] == pytest.approx(one["mse"]["value"] / patch["mse"]["value"])
    assert beside["mse_ratio"]["low"] > 1  # the network is untrained
    with (tmp_path / "out" / "images.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 40
    assert np.mean([float(row["mse patch"]) for row in rows]) == pytest.approx(patch["mse"]["value"])


def test_the_page_shows_the_worst_images_and_needs_no_other_file(digits, tmp_path):
    words = [digits / "tok", digits / "digits", "--split", "test", "--size", 8, "-o", tmp_path / "out"]
    assert evaluate(*words, "--beside", "patch") == 0
    page = (tmp_path / "out" / "report.html").read_text()
    with (tmp_path / "out" / "images.csv").open() as file:
        rows = list(csv.DictReader(file))
    worst = sorted(rows, key=lambda row: -float(row[f"mse {digits.name}/tok"]))
    paths = re.findall(r'class="card"><p>(.*?)</p>', page)
    assert paths[:8] == [row["path"] for row in worst[:8]]
    assert len(set(paths)) == 16
    assert page.count("data:image/png") == 16 * 3
    assert page.count("<svg") == 2
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "currentColor" in page  # ink of charts is the page's own
    assert "fill: #1c2330" not in page


def test_channels_and_ranges_of_files(tmp_path, capsys):
    data = write_bands(tmp_path / "bands", 12, 16)
    vq = save(small_vq(4, (0, 65535)), tmp_path / "vq")
    other = write_bands(tmp_path / "other", 6, 16, seed=1)
    words = [vq, data, "--size", 16, "-o", tmp_path / "out", "--beside", "patch", "--fit", other]
    assert evaluate(*words) == 0
    assert "Of 4 channels pictures show the first three" in (tmp_path / "out" / "report.html").read_text()
    record = json.loads((tmp_path / "out" / "reconstruction.json").read_text())
    source, crop = open_source(data), CentreCrop((16, 16), 4, (0, 65535))
    pixels = torch.from_numpy(np.stack([crop.of(source, i) for i in range(12)])).movedim(-1, 1)
    tokenizer = load_tokenizer(vq)
    with torch.no_grad():
        made = tokenizer.decode(tokenizer.encode(pixels))
    own = record["tokenizers"]["/".join(vq.parts[-2:])]
    assert own["given"] == str(vq)
    assert own["mse"]["value"] == pytest.approx(float((made - pixels).square().mean()))
    assert evaluate(vq, data, "--size", 16, "--rfid") == 1
    assert "these images have 4 channels" in capsys.readouterr().err


def test_another_networks_frechet_distance_has_its_name(digits, tmp_path, capsys):
    make_sampler().save(tmp_path / "model")
    more = ["--rfid", tmp_path / "model", "--spec", "raster/causal/token/L1/mean/mean"]
    words = [digits / "tok", digits / "digits", "--split", "test", "--size", 8]
    assert evaluate(*words, *more, "--beside", "patch") == 0
    shown = capsys.readouterr().out
    assert "| Fréchet distance |" in shown
    assert "raster/causal/token/L1/mean/mean." in shown
    assert evaluate(*words, "--rfid", "--weights", tmp_path / "missing") == 1
    assert "the weights of Inception are not at" in capsys.readouterr().err


def test_some_images_drawn_at_random(digits, capsys):
    words = [digits / "tok", digits / "digits", "--split", "train", "--size", 8, "--count", 9]
    assert evaluate(*words) == 0
    first = capsys.readouterr().out
    assert "9 images drawn from 80" in first
    assert "few tokens for so many codes" not in first
    assert evaluate(*words) == 0
    assert capsys.readouterr().out == first
    assert evaluate(*words, "--seed", 1) == 0
    assert capsys.readouterr().out != first


def test_damaged_images_are_skipped_and_listed(digits, tmp_path, capsys):
    for number in range(4):
        damaged.noise_picture(8, 8, seed=number).save(tmp_path / f"{number}.png")
    (tmp_path / "broken.png").write_bytes(b"")
    assert evaluate(digits / "tok", tmp_path, "--size", 8, "-o", tmp_path / "out") == 3
    said = capsys.readouterr()
    assert "4 images of" in said.out
    assert f"1 skipped, since they cannot be read, listed in {tmp_path / 'out' / 'skipped.csv'}: 1 an empty" in said.err
    assert "broken.png: an empty file" in said.err
    assert (tmp_path / "out" / "skipped.csv").read_text() == "path,reason\nbroken.png,an empty file\n"
    assert json.loads((tmp_path / "out" / "reconstruction.json").read_text())["data"]["skipped"] == 1


def test_images_that_come_back_exactly(tmp_path, capsys):
    """Flat images have no gradients: there is no border ratio, and beside no errors no ratio of them."""
    for number in range(6):
        Image.new("L", (8, 8), 40 * number).save(tmp_path / f"{number}.png")
    tok = save(fit_patches(open_source(tmp_path), (8, 8), 4, 8), tmp_path / "tok")
    twin = save(fit_patches(open_source(tmp_path), (8, 8), 2, 8), tmp_path / "twin")
    assert evaluate(tok, tmp_path, "--size", 8, "--beside", twin, "-o", tmp_path / "out") == 0
    shown = capsys.readouterr().out
    assert "| PSNR, dB | 100.00 [100.00, 100.00] |" in shown
    assert "| border ratio | none | none |\n| border ratio, originals | none | none |" in shown
    assert f"{tmp_path.name}/tok beside {tmp_path.name}/twin | none | none | 0.00" in shown
    assert "came back exactly: 6 of" in (tmp_path / "out" / "report.html").read_text()
    more = ["--size", 8, "--beside", twin, "--name", "mine", "theirs"]
    assert evaluate(tok, tmp_path, *more) == 0
    assert "mine beside theirs | none" in capsys.readouterr().out
    assert evaluate(tok, tmp_path, *more[:-1]) == 1
    assert "--name gives 1 names to 2 tokenizers" in capsys.readouterr().err


def test_a_models_tokenizer_reads_at_its_size(tmp_path, capsys):
    make_sampler().save(tmp_path / "model")
    for number in range(5):
        damaged.noise_picture(9, 12, 3, seed=number).save(tmp_path / f"{number}.png")
    assert evaluate(tmp_path / "model", tmp_path) == 0
    assert "4 x 6 pixels" in capsys.readouterr().out


def test_a_note_where_the_images_are_those_of_training(digits, tmp_path, capsys):
    """A tokenizer's record says its images, and the size that is taken where none is given."""
    from randfeat.pretrain.vq.run import FORMAT

    from randfeat.utils import atomic

    tok = save(small_vq(channels=1), tmp_path / "vq" / "tokenizer")
    seen = open_source(digits / "digits", "train").fingerprint()
    record = {"format": FORMAT, "recipe": {"images": {"size": [8, 12]}}, "images": seen}
    atomic.write_json(tok / weights.TRAINING, record)
    assert evaluate(tmp_path / "vq", digits / "digits", "--split", "train") == 0
    shown = capsys.readouterr().out
    assert "8 x 12 pixels" in shown
    assert "trained on these very images" in shown
    assert evaluate(tok, digits / "digits", "--split", "test") == 0
    shown = capsys.readouterr().out
    assert "8 x 12 pixels" in shown
    assert "trained on" not in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{tok}", "{digits}", "--split", "test", "--size", "9"], "do not divide into tokens of 2 x 2"),
        (["{tok}", "{digits}", "--split", "test", "--size", "8", "8", "8"], "--size is one number of pixels"),
        (["{tok}", "{test}", "--size", "8", "--beside", "patch"], "give --split test, where"),
        (["{tok}", "{test}", "--size", "8", "--beside", "patch", "--fit", "{test}"], "holds images that are scored"),
        (["{tok}", "{digits}", "--split", "train", "--size", "8", "--beside", "patch"], "give --split test, where"),
        (
            ["{tok}", "{digits}", "--split", "test", "--size", "8", "--beside", "patch", "--fit", "{digits}",
             "--fit-split", "test"],
            "holds images that are scored",
        ),
        (["{tok}", "{digits}", "--split", "test", "--size", "8", "--beside", "{tok}"], "that is the tokenizer itself"),
        (["{tok}", "{digits}", "--split", "test", "--size", "8", "--beside", "{colour}"], "of other channels or"),
        (["{tok}", "{digits}", "--split", "test", "--count", "0"], "give a number of images from 1"),
        (["{tok}", "{digits}", "--split", "test", "--spec", "x"], "--weights and --spec are for --rfid"),
        (["{tok}", "{digits}", "--split", "test", "--fit", "x"], "--fit and --fit-split are for --beside patch"),
        (["{missing}", "{test}"], "there is no file or directory"),
        (["{tok}", "{digits}", "--split", "test", "--size", "2"], "too small for SSIM"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(digits, tmp_path, capsys, words, message):
    colour = save(official.tokenizer(stride=2), tmp_path / "colour")
    data = digits / "digits"
    names = dict(tok=digits / "tok", digits=data, test=data / "test", colour=colour, missing=tmp_path / "no" / "tok")
    assert evaluate(*(word.format(**names) for word in words)) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("randfeat")]
    assert len(said) == 1
    assert message in said[0]


def test_a_damaged_tokenizer_is_one_sentence(digits, tmp_path, capsys):
    broken = load_tokenizer(digits / "tok")
    broken.codebook.fill_(float("nan"))
    save(broken, tmp_path / "tok")
    assert evaluate(tmp_path / "tok", digits / "digits", "--split", "test", "--size", 8) == 1
    assert "values that are not finite: its weights are damaged" in capsys.readouterr().err
