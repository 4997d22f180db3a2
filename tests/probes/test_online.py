import numpy as np
import pytest
import torch
from PIL import Image
from randfeat.probes import HeadRecipe, augmentation, centre_crop, score_online, sweep_online, train_heads, train_online

RECIPE = HeadRecipe("sgd", (1e-4, 20.0), (0.0,), batch=8, epochs=15)
NAMES = np.array(["red", "green", "blue"])


def pictures(n=24):
    """One colour each, on noise."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(n):
        pixels = rng.integers(100, size=(20 + i % 3, 30, 3), dtype=np.uint8)
        pixels[:, :, i % 3] += 100
        made.append(Image.fromarray(pixels))
    return made, NAMES[np.arange(n) % 3]


def mean_colour(images):
    assert images.shape[1:] == (3, 8, 8)
    assert images.dtype == torch.float32
    assert 0 <= images.min() <= images.max() <= 1
    return images.mean((2, 3))


def test_heads_are_trained_chosen_and_scored():
    images, labels = pictures()
    held_out = np.arange(24) >= 15

    def encode(batch):
        return {"nothing": batch.new_ones(len(batch), 2), "colour": mean_colour(batch)}

    found = sweep_online(images, labels, held_out, encode, RECIPE, size=8, images_at_once=5)
    assert found.best == ("colour", 20.0, 0.0)
    assert found.score == 1
    assert len(found.scores) == 4
    assert found.scores["nothing", 20.0, 0.0] == pytest.approx(1 / 3)
    features = torch.stack([mean_colour(centre_crop(8)(image)[None])[0] for image in images[15:]])
    assert (found.probe.predict(features.numpy()) == labels[15:]).all()


def test_every_epoch_sees_other_crops_and_none_depends_on_parts(tmp_path):
    images, labels = pictures(6)
    paths = []
    for i, image in enumerate(images):
        image.save(tmp_path / f"{i}.png")
        paths.append(tmp_path / f"{i}.png")
    seen = []

    def encode(batch):
        seen.extend(batch.flatten(1).tolist())
        return mean_colour(batch)

    recipe = HeadRecipe("sgd", (1.0,), batch=6, epochs=3)
    state = torch.get_rng_state()
    whole = train_online(images, labels, encode, recipe, size=8, seed=1)
    assert len({tuple(crop) for crop in seen}) == 18
    assert (torch.get_rng_state() == state).all()
    first = seen.copy()
    seen.clear()
    parts = train_online(paths, labels, encode, recipe, size=8, seed=1, images_at_once=4)
    assert seen == first
    trial = whole.trials[0]
    np.testing.assert_allclose(whole.head(trial).weight_, parts.head(trial).weight_, atol=1e-6)
    seen.clear()
    train_online(paths, labels, encode, recipe, size=8, seed=2)
    assert not set(map(tuple, seen)) & set(map(tuple, first))


@pytest.mark.slow
def test_workers_do_not_change_the_heads():
    images, labels = pictures(6)
    recipe = HeadRecipe("sgd", (1.0,), batch=6, epochs=2)
    alone, helped = (train_online(images, labels, mean_colour, recipe, size=8, workers=w) for w in (0, 1))
    trial = alone.trials[0]
    assert (alone.head(trial).weight_ == helped.head(trial).weight_).all()


def test_without_augmentation_it_is_the_cached_sweep(monkeypatch):
    images, labels = pictures()
    monkeypatch.setattr("randfeat.probes.classifiers.online.augmentation", centre_crop)
    online = train_online(images, labels, mean_colour, RECIPE, size=8, seed=4)
    cached = torch.stack([mean_colour(centre_crop(8)(image)[None])[0] for image in images]).numpy()
    offline = train_heads({"features": cached}, labels, RECIPE, seed=4)
    assert online.trials == offline.trials
    for trial in online.trials:
        np.testing.assert_allclose(online.head(trial).weight_, offline.head(trial).weight_, atol=1e-5)


def test_crops():
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None].repeat(256, 0)).convert("RGB")
    middle = centre_crop(224)(ramp)
    assert middle.shape == (3, 224, 224)
    np.testing.assert_allclose(middle[0, 0], np.arange(16, 240) / 255, atol=1e-6)
    torch.manual_seed(0)
    crops = torch.stack([augmentation(16)(ramp) for _ in range(200)])[:, 0]
    mirrored = (crops[:, 0, -1] < crops[:, 0, 0]).float().mean()
    assert 0.35 < mirrored < 0.65
    assert 0 <= crops.min() <= crops.max() <= 1


def test_odd_data():
    """Two images, one of them grey, and a class that only the test has."""
    images = [Image.new("L", (9, 9), 255), Image.new("RGBA", (12, 9))]
    heads = train_online(images, ["white", "black"], mean_colour, HeadRecipe("sgd", (30.0,), batch=2, epochs=9), size=8)
    right = score_online(heads, [*images, images[0]], ["white", "black", "grey"], mean_colour, size=8, images_at_once=2)
    assert right.tolist() == [[True, True, False]]


def test_bad_input():
    images, labels = pictures(6)
    with pytest.raises(ValueError, match="one class"):
        train_online(images, ["a"] * 6, mean_colour, RECIPE, size=8)
    with pytest.raises(ValueError, match=r"shape \(2,\), expected \(6,\)"):
        train_online(images, labels[:2], mean_colour, RECIPE, size=8)
    with pytest.raises(ValueError, match=r"for 6 images, expected \(B, d\)"):
        train_online(images, labels, lambda batch: batch, RECIPE, size=8)
    with pytest.raises(ValueError, match="features of images 0 to 5 hold NaN or infinity in 6 of 6 rows"):
        train_online(images, labels, lambda batch: mean_colour(batch) * torch.nan, RECIPE, size=8)
    with pytest.raises(ValueError, match="leave some to fit"):
        sweep_online(images, labels, np.ones(6, bool), mean_colour, RECIPE, size=8)
