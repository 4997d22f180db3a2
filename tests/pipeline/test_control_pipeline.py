"""Control with pictures at both ends."""

import json

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from pipelines import SIZE, make_pipeline

from randfeat import Guidance, Sampling, load
from randfeat.data import conditions
from randfeat.data.images import as_images, to_pil
from randfeat.inference.extrapolation import Extrapolation
from randfeat.inference.sampling import sample

IMAGES = torch.rand(3, 1, *SIZE, generator=torch.Generator().manual_seed(0))
LABELS = ["cat", None, "cow"]


@pytest.fixture(params=["arpg", "randar"])
def pipeline(request):
    return make_pipeline(request.param, control=tiny.CONTROL)


def test_samples_follow_the_edges_of_images(pipeline):
    made = pipeline.sample(LABELS, control=IMAGES)
    condition = pipeline.inference_generator().control(conditions.make(IMAGES, "edges"))
    seeds = torch.arange(3)
    label = pipeline.label_indices(LABELS)
    expected = sample(pipeline.inference_generator(), label, seeds, Sampling(), condition=condition)
    assert torch.equal(made, pipeline.decode(expected))
    assert not torch.equal(made, pipeline.sample(LABELS))
    assert torch.equal(made, pipeline.sample(LABELS, control=IMAGES, batch_size=2))
    edges = conditions.make(IMAGES, "edges")
    assert torch.equal(made, pipeline.sample(LABELS, control=edges, control_type="image"))
    assert torch.equal(made, pipeline.sample(LABELS, control=edges.squeeze(1).numpy(), control_type="image"))
    one = pipeline.sample(LABELS, control=to_pil(IMAGES[0]))
    assert torch.equal(one[0], pipeline.sample(LABELS[:1], control=to_pil(IMAGES[0]))[0])


def test_the_scale_of_the_control_is_a_guidance_of_its_own(pipeline):
    how = Sampling(control_guidance=Guidance(3.0), guidance=Guidance(2.0))
    made = pipeline.sample(LABELS, how, control=IMAGES)
    other = pipeline.sample(LABELS, Sampling(guidance=Guidance(2.0)), control=IMAGES, control_scale=3.0)
    assert torch.equal(made, other)
    assert not torch.equal(made, pipeline.sample(LABELS, how, control=IMAGES, control_scale=1.0))


def test_unknown_tokens_are_drawn_as_the_condition_says(pipeline):
    tokens, known = pipeline.encode(IMAGES), torch.arange(6) < 2
    made = pipeline.complete(tokens, known, LABELS, control=IMAGES)
    assert torch.equal(made[:, known], tokens[:, known])
    assert not torch.equal(made, pipeline.complete(tokens, known, LABELS))
    none = pipeline.complete(tokens, torch.zeros(6, dtype=torch.bool), LABELS, control=IMAGES)
    assert torch.equal(pipeline.decode(none), pipeline.sample(LABELS, control=IMAGES))


def test_it_is_saved_and_loaded_with_its_control(pipeline, tmp_path):
    pipeline.save(tmp_path / "model")
    again = load(tmp_path / "model")
    assert again.generator.config == pipeline.generator.config
    assert torch.equal(again.sample(LABELS, control=IMAGES), pipeline.sample(LABELS, control=IMAGES))
    coarse = load(tmp_path / "model", dtype=torch.bfloat16)
    assert coarse.sample(LABELS, control=IMAGES).shape == (3, 1, *SIZE)


def test_a_model_that_was_saved_before_there_was_control_opens(tmp_path):
    make_pipeline().save(tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    assert "control" not in config["generator"]
    assert "control_guidance" not in config["sampling"]
    assert torch.equal(load(tmp_path / "model").sample(LABELS), make_pipeline().sample(LABELS))


def test_colours_are_a_condition_too():
    pipeline = make_pipeline(channels=3, control={**tiny.CONTROL, "kind": "lowres", "channels": 3})
    made = pipeline.sample(LABELS, control=torch.rand(3, 3, *SIZE))
    assert made.shape == (3, 3, *SIZE)
    given = make_pipeline(control={**tiny.CONTROL, "kind": "image", "channels": 3})
    assert given.conditions(to_pil(IMAGES[0])).shape == (1, 3, *SIZE)


def test_what_cannot_be_controlled_is_refused(pipeline):
    with pytest.raises(ValueError, match="this model has no control: train one"):
        make_pipeline("llamagen").sample(LABELS, control=IMAGES)
    with pytest.raises(ValueError, match="this model is controlled by edges, not by mask: leave the type out"):
        pipeline.sample(LABELS, control=IMAGES, control_type="mask")
    with pytest.raises(ValueError, match="2 control images for 3 images: give one for all or one for each"):
        pipeline.sample(LABELS, control=IMAGES[:2])
    with pytest.raises(ValueError, match="control_guidance is an object, got 3"):
        Sampling(control_guidance=3)


@pytest.mark.parametrize("spatial", [1.0, 2.0])
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_larger_images_follow_the_condition_of_the_trained_size(pipeline, guidance, spatial):
    larger = Extrapolation(2, spatial=Guidance(spatial))

    def made(control_scale, **control):
        how = Sampling(2, guidance=Guidance(guidance), control_guidance=Guidance(control_scale))
        return pipeline.sample(LABELS, how, extrapolation=larger, **control)

    plain, steered, elsewhere = made(1.0), made(1.0, control=IMAGES), made(1.0, control=IMAGES.flip(0))
    assert steered.shape == (3, 1, 2 * SIZE[0], 2 * SIZE[1])
    assert torch.equal(steered, made(1.0, control=IMAGES))
    assert not torch.equal(steered, plain)
    assert not torch.equal(steered, elsewhere)
    strongly = made(3.0, control=IMAGES)
    assert not torch.equal(strongly, steered)
    one = pipeline.sample(LABELS[:1], Sampling(2, guidance=Guidance(guidance)), 0, None, larger, control=IMAGES[:1])
    torch.testing.assert_close(one, steered[:1])


def test_a_condition_of_the_large_grid():
    condition = torch.arange(6.0).view(1, 6, 1)
    large = Extrapolation((2, 1)).condition((2, 3), condition)
    assert large.flatten().tolist() == [0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5]


# pictures of any size ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fit", ["whole", "around", "tile"])
def test_a_mask_is_painted_as_the_edges_of_a_picture_say(pipeline, fit):
    rng = np.random.default_rng(0)
    picture, other = (Image.fromarray(rng.integers(0, 255, (12, 20), dtype=np.uint8)) for _ in range(2))
    mask = np.zeros((12, 20), dtype=bool)
    mask[3:9, 5:18] = True
    how = dict(samples=2, framing=fit, sampling=Sampling(2))
    plain = pipeline.inpaint(picture, mask, "dog", **how)
    steered, again, elsewhere = (
        pipeline.inpaint([picture, picture], mask, "dog", **how, control=control)
        for control in ([picture, other], [picture, other], [other, picture])
    )
    for one in (*steered, *elsewhere):
        assert np.array_equal(np.asarray(one)[~mask], np.asarray(picture)[~mask])
    assert [np.array_equal(a, b) for a, b in zip(steered, again, strict=True)] == [True] * 4
    assert not np.array_equal(steered[0], elsewhere[0])
    assert not np.array_equal(steered[0], plain[0])
    alone = pipeline.inpaint(picture, mask, "dog", **how, control=picture, batch_size=1)
    assert [np.array_equal(a, b) for a, b in zip(steered, alone, strict=False)] == [True] * 2


def test_a_whole_mask_is_a_sample(pipeline):
    picture = to_pil(IMAGES[0])
    whole = pipeline.inpaint(picture, np.ones(SIZE, dtype=bool), "cat", control=picture)[0]
    sampled = pipeline.sample(["cat"], control=picture)[0]
    assert np.array_equal(np.asarray(whole), np.asarray(to_pil(sampled)))
    edges = to_pil(conditions.make(as_images(picture, 1, SIZE), "edges")[0])
    given = pipeline.inpaint(picture, np.ones(SIZE, dtype=bool), "cat", control=edges, control_type="image")[0]
    assert np.array_equal(np.asarray(given), np.asarray(whole))


def test_a_picture_of_another_size_steers_none(pipeline):
    picture, large = to_pil(IMAGES[0]), Image.new("L", (9, 9))
    with pytest.raises(ValueError, match="control pictures of 9 x 9 pixels for pictures of 6 x 4 pixels"):
        pipeline.inpaint(picture, (0, 0, 2, 2), control=large)
    with pytest.raises(ValueError, match="this model has no control"):
        make_pipeline().inpaint(picture, (0, 0, 2, 2), control=picture)
