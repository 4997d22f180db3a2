"""Control from the command line: `randfeat pretrain --control`, `randfeat sample --control`."""

import json

import numpy as np
import pytest
import tiny
import torch
from folders import contents
from PIL import Image
from pipelines import SIZE, make_pipeline

from randfeat import Guidance, Sampling, cli, load
from randfeat.data import conditions
from randfeat.data.images import to_pil
from randfeat.inference.extrapolation import Extrapolation
from randfeat.pipeline.sample_folder import write_samples


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models with and without control, pictures, and their edges."""
    root = tmp_path_factory.mktemp("control")
    make_pipeline(control=tiny.CONTROL).save(root / "model")
    make_pipeline().save(root / "plain")
    make_pipeline(control={**tiny.CONTROL, "kind": "image"}).save(root / "given")
    images = torch.rand(3, 1, *SIZE, generator=torch.Generator().manual_seed(0))
    for number, image in enumerate(images):
        to_pil(image).save(root / f"{number}.png")
        to_pil(conditions.make(image[None], "edges")[0]).save(root / f"edges-{number}.png")
    return root


def sample(folder, out, *more, model="model"):
    command = ["sample", folder / model, "--out", out, "--device", "cpu", *more]
    return cli.main([str(word) for word in command])


def pictures_of(out):
    return [np.asarray(Image.open(path)) for path in sorted((out / "images").iterdir())]


def test_samples_follow_pictures_in_turn(folder, tmp_path):
    out, control = tmp_path / "out", [folder / "0.png", folder / "1.png"]
    how = ["--control", *control, "--classes", "cat", "--guidance", "2", "--control-scale", "3", "--steps", "3"]
    assert sample(folder, out, *how, "--count", "5") == 0
    sampling = Sampling(3, guidance=Guidance(2.0), control_guidance=Guidance(3.0))
    paths = [str(control[number % 2]) for number in range(5)]
    made = load(folder / "model").sample(["cat"] * 5, sampling, control=paths)
    for image, picture in zip(made, pictures_of(out), strict=True):
        assert np.array_equal(np.asarray(to_pil(image)), picture)
    with Image.open(out / "control.png") as sheet:
        assert sheet.width > 6 * 96 * 6 / 4
    settings = json.loads((out / "settings.json").read_text())
    assert settings["sampling"]["control_guidance"]["scale"] == 3
    before = contents(out)
    assert sample(folder, out, *how, "--count", "5") == 0  # nothing is missing
    assert contents(out) == before
    assert sample(folder, tmp_path / "two", *how) == 0  # as many as pictures
    assert len(pictures_of(tmp_path / "two")) == 2
    assert len(contents(out)) > len(contents(tmp_path / "two"))


def test_pictures_can_be_the_condition_themselves(folder, tmp_path):
    computed = ["--control", folder / "0.png", "--count", "2"]
    given = ["--control", folder / "edges-0.png", "--control-type", "image", "--count", "2"]
    assert sample(folder, tmp_path / "computed", *computed) == 0
    assert sample(folder, tmp_path / "given", *given) == 0
    for one, other in zip(pictures_of(tmp_path / "computed"), pictures_of(tmp_path / "given"), strict=True):
        assert np.array_equal(one, other)
    assert sample(folder, tmp_path / "computed", *given) == 0  # the same edges: the same folder
    assert sample(folder, tmp_path / "of-images", "--control", folder / "0.png", model="given") == 0
    assert (tmp_path / "of-images" / "control.png").is_file()


def test_without_control_a_folder_is_as_it_was(tmp_path):
    write_samples(make_pipeline(), tmp_path / "out", 2)
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert "control_guidance" not in settings["sampling"]
    assert settings.pop("control") is None
    (tmp_path / "out" / "settings.json").write_text(json.dumps(settings))  # as before there was any
    write_samples(make_pipeline(), tmp_path / "out", 3)
    assert not (tmp_path / "out" / "control.png").exists()


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        ("plain", "--control {folder}/0.png", "this model has no control: train one"),
        ("model", "--control {folder}/0.png --control-type mask", "this model is controlled by edges, not by mask"),
        ("model", "--control {folder}/9.png", "9.png"),
        (
            "model",
            "--control-scale 3",
            "--control-scale is about an image that controls the result: give --control too",
        ),
        (
            "model",
            "--control-type image",
            "--control-type is about an image that controls the result: give --control too",
        ),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(folder, tmp_path, capsys, model, arguments, message):
    assert sample(folder, tmp_path / "out", *arguments.format(folder=folder).split(), model=model) == 1
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "out").exists()


# painting ----------------------------------------------------------------------------------------------------

BOX = ["--box", "1", "1", "5", "3"]
WIDER = ["--sides", "2", "0", "0", "2"]


def paint(folder, command, out, *more, model="model"):
    words = [command, folder / model, folder / "0.png", "--out", out, "--device", "cpu", "--samples", "2", *more]
    return cli.main([str(word) for word in words])


def test_painting_follows_a_picture(folder, tmp_path):
    model, picture, other = load(folder / "model"), folder / "0.png", folder / "1.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (6, 8), dtype=np.uint8)).save(
        wide := tmp_path / "wide.png"
    )
    hidden, how = (1, 1, 5, 3), Sampling(control_guidance=Guidance(3.0))
    scale = ["--control-scale", "3"]
    made = {
        "inpaint": (
            [*BOX, "--control", other, *scale, "--gif"],
            model.inpaint(picture, hidden, samples=2, sampling=how, control=other),
        ),
        "edit": (
            [*BOX, "--class", "dog", "--control", folder / "edges-1.png", "--control-type", "image"],
            model.edit(picture, hidden, "dog", samples=2, control=folder / "edges-1.png", control_type="image"),
        ),
        "outpaint": (
            [*WIDER, "--control", wide, "--control-type", "edges"],
            model.outpaint(picture, None, 2, 0, 0, 2, samples=2, control=wide),
        ),
    }
    for command, (words, expected) in made.items():
        out = tmp_path / command
        assert paint(folder, command, out, *words) == 0
        for ours, theirs in zip(pictures_of(out), expected, strict=True):
            assert np.array_equal(ours, np.asarray(theirs))
        settings = json.loads((out / "settings.json").read_text())
        assert settings["control"]["kind"] == ("image" if command == "edit" else "edges")
        assert paint(folder, command, out, *words) == 0  # nothing is missing
        assert (
            paint(folder, command, out, *(word for word in words if word != "--gif"), "--control", folder / "2.png")
            == 1
        )
    plain = model.inpaint(picture, hidden, samples=2)
    assert any((a != np.asarray(b)).any() for a, b in zip(pictures_of(tmp_path / "inpaint"), plain, strict=True))
    *_, last = model.watch("dog", picture, hidden, control=other)
    assert np.array_equal(last.picture, model.inpaint(picture, hidden, "dog", control=other)[0])


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        ("plain", "--control {folder}/1.png", "this model has no control: train one"),
        ("model", "--control {folder}/1.png --control-type mask", "this model is controlled by edges, not by mask"),
        ("model", "--control {folder}/1.png --control-type canny", "this model is controlled by edges, not by canny"),
        (
            "model",
            "--control-scale 2",
            "--control-scale is about an image that controls the result: give --control too",
        ),
        ("model", "--control {folder}/wide.png", "control pictures of 9 x 4 pixels for pictures of 6 x 4 pixels"),
    ],
)
@pytest.mark.parametrize("command", ["inpaint", "outpaint"])
def test_painting_says_what_cannot_steer(folder, tmp_path, capsys, command, model, arguments, message):
    Image.new("L", (9, 4)).save(folder / "wide.png")
    where = BOX if command == "inpaint" else ["--sides", "0", "0", "0", "0"]
    words = arguments.format(folder=folder).split()
    assert paint(folder, command, tmp_path / "out", *where, *words, model=model) == 1
    said = capsys.readouterr().err
    assert message in said
    assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


# training ----------------------------------------------------------------------------------------------------


RECIPE = """
model: arpg
labels: true
size: {embed_dim: 16, depth: 2, num_heads: 2, ffn_dim: 24}
training: {steps: 8, batch_size: 8, learning_rate: 0.01, warmup: 2, eval_every: 4}
control: {width: 8, depth: 1}
"""


def test_a_model_learns_control_and_is_steered(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for number in range(40):
        path = tmp_path / "photos" / ("cat", "dog")[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (4, 6, 3), dtype=np.uint8)).save(path)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    patches = ["--tokenizer", "patch", "--patch", "2", "--size", "4", "6", "--vocab", "7", "--workers", "0"]
    assert cli.main(["tokenize", str(tmp_path / "photos"), "-o", str(tmp_path / "cache"), *patches]) == 0

    def pretrain(out, *more):
        given = ["--config", tmp_path / "recipe.yaml", "--data", tmp_path / "cache", "-o", tmp_path / out, *more]
        return cli.main(["pretrain", *map(str, given), "--device", "cpu", "--workers", "0", "--samples", "4"])

    assert pretrain("plain") == 0
    steered = ["--control-type", "edges", "--init", tmp_path / "plain" / "model"]
    assert pretrain("run", *steered, "--set", "control.alone=true") == 0
    plain, model = (load(tmp_path / name / "model") for name in ("plain", "run"))
    assert plain.generator.control is None
    assert model.generator.config["control"]["kind"] == "edges"
    own = model.generator.state_dict()
    assert all(torch.equal(own[name], value) for name, value in plain.generator.state_dict().items())
    assert (tmp_path / "run" / "samples" / "step-00000008.png").is_file()
    assert (tmp_path / "run" / "report.html").is_file()
    assert json.loads((tmp_path / "run" / "model" / "config.json").read_text())["training"]["recipe"]["control"][
        "alone"
    ]
    mirrored = tmp_path / "mirrored"  # depth maps, say: pictures of the same names
    for path in sorted((tmp_path / "photos").rglob("*.png")):
        there = mirrored / path.relative_to(tmp_path / "photos")
        there.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(there)
    tokenizer = ["--tokenizer", str(tmp_path / "plain" / "model"), "--size", "4", "6", "--workers", "0"]
    assert cli.main(["tokenize", str(mirrored), "-o", str(tmp_path / "pairs"), *tokenizer]) == 0
    assert pretrain("paired", "--control-type", "image", "--control-data", tmp_path / "pairs") == 0
    assert load(tmp_path / "paired" / "model").generator.config["control"]["kind"] == "image"
    photo = tmp_path / "photos" / "cat" / "00.png"
    out = tmp_path / "out"
    assert cli.main(["sample", str(tmp_path / "run" / "model"), "--control", str(photo), "--out", str(out)]) == 0
    capsys.readouterr()
    assert pretrain("other", "--control-type", "canny") == 1
    assert "unknown kind of condition 'canny'" in capsys.readouterr().err
    assert pretrain("other", "--control-type", "image") == 1
    assert "is not made of images: give paired pictures (--control-data)" in capsys.readouterr().err


def test_variations_follow_a_picture(folder, tmp_path):
    model, picture, other = load(folder / "model"), Image.open(folder / "0.png"), Image.open(folder / "1.png")
    how = Sampling(3, control_guidance=Guidance(3.0))
    plain = model.variations(picture, 0.2, "cat", 2, sampling=how)
    steered = model.variations(picture, 0.2, "cat", 2, sampling=how, control=other)
    assert not all(np.array_equal(one, two) for one, two in zip(plain, steered, strict=True))
    command = ["vary", folder / "model", folder / "0.png", "--keep", "0.2", "--class", "cat", "--samples", "2"]
    command += ["--steps", "3", "--control", folder / "1.png", "--control-scale", "3", "--device", "cpu"]
    assert cli.main([*map(str, command), "--out", str(tmp_path / "out")]) == 0
    for made, expected in zip(pictures_of(tmp_path / "out"), steered, strict=True):
        assert np.array_equal(made, np.asarray(expected))
    assert json.loads((tmp_path / "out" / "settings.json").read_text())["control"]["kind"] == "edges"
    given = dict(control=str(folder / "edges-1.png"), control_type="image")
    edges = model.variations(picture, 0.2, "cat", 2, sampling=how, **given)
    assert all(np.array_equal(one, two) for one, two in zip(edges, steered, strict=True))
    with pytest.raises(ValueError, match="give one as large as each result"):
        model.variations(picture, control=Image.new("L", (9, 9)))


def test_many_pictures_with_a_control_of_each(folder, tmp_path):
    controls = tmp_path / "controls"
    controls.mkdir()
    for number in (0, 1):
        (controls / f"{number}.png").write_bytes((folder / f"edges-{number}.png").read_bytes())
    common = ["--control", controls, "--control-type", "image", "--samples", "2", "--steps", "3", "--device", "cpu"]
    files = [folder / "0.png", folder / "1.png"]
    for command, more in (("vary", ["--keep", "0.5"]), ("inpaint", ["--box", "0", "0", "3", "4"])):
        words = [command, folder / "model", *files, *more, *common, "--out", tmp_path / command]
        assert cli.main([*map(str, words)]) == 0
        words = [command, folder / "model", files[1], *more, *common, "--out", tmp_path / f"{command} alone"]
        assert cli.main([*map(str, words)]) == 0
        expected = pictures_of(tmp_path / f"{command} alone")
        for made, one in zip(pictures_of(tmp_path / command / "1"), expected, strict=True):
            assert np.array_equal(made, one)


def test_larger_samples_follow_a_picture(folder, tmp_path):
    how = ["--control", folder / "0.png", "--count", "2", "--steps", "3", "--factor", "2", "--classes", "cat"]
    assert sample(folder, tmp_path / "out", *how) == 0
    model = load(folder / "model")
    control = [str(folder / "0.png")] * 2
    made = model.sample(["cat"] * 2, Sampling(3), control=control, extrapolation=Extrapolation(2))
    for picture, image in zip(pictures_of(tmp_path / "out"), made, strict=True):
        assert np.array_equal(picture, np.asarray(to_pil(image)))
    assert (tmp_path / "out" / "control.png").is_file()
