"""Views of an image: what they show, that each order reads its own, and that the race reads the same ones."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from randfeat import Pipeline, SuccessiveHalving, Views
from randfeat.inference.likelihood import class_log_prob, orders_of, token_log_prob
from randfeat.inference.readout import sub_patch_shifts
from randfeat.inference.successive_halving import Rung, rank_classes
from randfeat.tokenizers import LlamaGenVQ, PatchTokenizer
from randfeat.utils import rng

EVERYBODY = SuccessiveHalving((Rung(0.5), Rung(1), Rung(2), Rung(torch.inf)), margin=torch.inf)
SIZE = (4, 6)


class Shown:
    """Tokenizer whose tokens are the pixels that it is shown; with jitter their noise as well."""

    stride = 2

    def encode(self, images):
        return images[:, 0]

    def encode_jittered(self, images, jitter, seed):
        return images[:, 0] + jitter * rng.normal(seed, images[0, 0].numel()).view(images.shape[2:])


def pipeline(channels=1):
    tokenizer = PatchTokenizer.fit(torch.rand(9, channels, *SIZE), 7, 2)
    return Pipeline(tokenizer, tiny.model("randar", (2, 3)))


def pixels(count=3, size=SIZE):
    return torch.rand(count, 1, *size, generator=torch.Generator().manual_seed(1))


def test_orders_go_round_the_places_and_mirror_every_second():
    image = pixels()
    shown = Views(shifts=2, flip=True).encode(Shown(), image, SIZE, 16).unflatten(2, SIZE)
    assert shown.shape == (3, 8, *SIZE)
    places = sub_patch_shifts(image, 2, 2)[:, :, 0]
    for place in range(4):
        assert torch.equal(shown[:, 2 * place], places[:, place])
        assert torch.equal(shown[:, 2 * place + 1], places[:, place].flip(2))
    assert Views(shifts=2, flip=True).count(3) == 3
    assert Views().count(9) == 1
    assert torch.equal(Views().encode(Shown(), image, SIZE, 9).view(3, *SIZE), image[:, 0])


def test_crops_keep_the_share_and_come_from_the_larger_image():
    views, size = Views(crop=0.8), (20, 20)
    height, width = views.larger(size)
    assert (height, width) == (25, 25)
    rows = torch.linspace(0, 1, 25).view(1, 1, 25, 1).expand(1, 1, 25, 25)
    shown = views.encode(Shown(), rows, size, 200).view(200, *size)
    spans = shown[:, -1].mean(1) - shown[:, 0].mean(1)  # a crop shows as much of the ramp as it keeps
    assert spans[0] == spans.max() > 0.94  # the first order sees all
    assert 0.7 < spans.min() < 0.8
    assert shown[:, 0].mean(1).unique().numel() > 4  # at several places
    again = views.encode(Shown(), rows, size, 3).view(3, *size)
    assert torch.equal(again, shown[:3])  # fewer orders read the first views


def test_jitter_is_noise_of_its_own_for_each_order_but_the_first():
    image = pixels(2)
    shown = Views(jitter=0.5).encode(Shown(), image, SIZE, 4, seed=3).unflatten(2, SIZE)
    assert torch.equal(shown[:, 0], image[:, 0])
    noise = shown[:, 1:] - image
    assert torch.allclose(noise[0], noise[1], atol=1e-6)  # the same for all images
    assert noise[0, 0].ne(noise[0, 1]).all()
    values = rng.normal(torch.tensor(5), 100_000)
    assert abs(values.mean()) < 0.01
    assert abs(values.std() - 1) < 0.01


def test_jittered_tokens_are_those_of_nearby_latents():
    tokenizer, image = pipeline().tokenizer, pixels(40)
    seed = torch.tensor(4)
    plain = tokenizer.encode(image)
    assert torch.equal(tokenizer.encode_jittered(image, 0.0, seed), plain)
    changed = [(tokenizer.encode_jittered(image, jitter, seed) != plain).float().mean() for jitter in (0.1, 0.5, 3)]
    assert 0 < changed[0] < changed[1] < changed[2]
    learned = LlamaGenVQ(16, 4, 32, (1, 1), 1, 8).eval()
    colour = torch.rand(2, 3, 4, 4)
    assert torch.equal(learned.encode_jittered(colour, 0.0, seed), learned.encode(colour))
    assert (learned.encode_jittered(colour, 5.0, seed) != learned.encode(colour)).any()


def test_each_order_reads_its_view(model):
    views = torch.stack([tiny.batch(model, seed=seed)[0] for seed in range(2)], 1)
    found = class_log_prob(model, views, [1, 0], 5, seed=3)
    table = orders_of(model, 5, seed=3).expand(5, -1)
    for k in range(5):
        rows = torch.arange(3), torch.ones(3, dtype=torch.int64), torch.full((3,), k)
        alone = torch.cat(list(token_log_prob(model, views[:, k % 2], table, rows))).sum(1)
        torch.testing.assert_close(found[:, 0, k], alone)
    scores, ranking, _ = rank_classes(model, views, [1, 0], 5, EVERYBODY, seed=3)
    distinct = 5 if model.many_orders else 2
    torch.testing.assert_close(scores, found[..., :distinct].mean(2))
    assert torch.equal(ranking, found[..., :distinct].mean(2).argsort(dim=1, descending=True))


def test_classify_takes_pictures_of_any_size_and_ready_images_alike():
    model = pipeline()
    ready = pixels(2)
    shown = [Image.fromarray((one[0] * 255).byte().numpy()) for one in pixels(2, (40, 60))]
    for views in (Views(shifts=2, flip=True), Views(crop=0.6, jitter=0.2)):
        found = model.classify(ready, orders=3, views=views)
        assert found.log_prob.isfinite().all()
        apart = model.classify([one.numpy() for one in ready], orders=3, views=views, batch_size=1)
        torch.testing.assert_close(apart.log_prob, found.log_prob)
        assert (found.passes == 3 * model.generator.num_classes).all()
        assert model.classify(shown, orders=3, views=views).log_prob.isfinite().all()
    plain = model.classify(ready, orders=3)
    assert torch.equal(model.classify(ready, orders=3, views=Views()).log_prob, plain.log_prob)
    assert not torch.equal(model.classify(ready, orders=3, views=Views(shifts=2)).log_prob, plain.log_prob)


def test_a_model_of_one_order_gains_a_pass_for_each_view():
    model = Pipeline(pipeline().tokenizer, tiny.model("llamagen", (2, 3)))
    found = model.classify(pixels(2), orders=8, views=Views(shifts=2))
    assert (found.passes == 4 * model.generator.num_classes).all()
    raised = model.classify(pixels(2), orders=8, views=Views(shifts=2), halving=EVERYBODY)
    torch.testing.assert_close(raised.log_prob, found.log_prob)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"shifts": 0}, "shifts must be a whole number from 1"),
        ({"flip": 1}, "flip is True or False"),
        ({"crop": 0}, "from 0.1 to 1"),
        ({"crop": 1.5}, "from 0.1 to 1"),
        ({"jitter": -1}, "from 0"),
        ({"jitter": np.nan}, "from 0"),
    ],
)
def test_views_that_make_no_sense_are_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        Views(**settings)
