"""Backbones as torch's tools take them: exported and traced at any batch, empty batches, values that are no numbers."""

import pytest
import tiny
import torch

from randfeat import Pipeline, timm_models
from randfeat.tokenizers import PatchTokenizer

SIZE = (8, 12)
DRAW = torch.Generator().manual_seed(0)
TWO, FIVE = (torch.rand(count, 3, *SIZE, generator=DRAW) for count in (2, 5))
READINGS = {
    "randar": ("randar", {}),
    "randar in both directions": ("randar", dict(orders="bidirectional", stream="query", merge="concat")),
    "randar in an order of each image": ("randar", dict(orders="random:per-image", context="echo")),
    "randar behind the image": ("randar", dict(stream="query", context="bare")),
    "arpg": ("arpg", {}),
    "arpg, queries": ("arpg", dict(stream="query", context="after")),
    "llamagen": ("llamagen", dict(context="full")),
}


@pytest.fixture(params=READINGS)
def model(request):
    name, keywords = READINGS[request.param]
    tokenizer = PatchTokenizer.fit(torch.rand(6, 3, *SIZE, generator=torch.Generator().manual_seed(1)), 7, 4)
    made = Pipeline(tokenizer, tiny.model(name, (2, 3), depth=4))
    return timm_models.wrap(made, num_classes=5, layer=3, **keywords).eval()


@torch.no_grad()
def test_an_exported_backbone_takes_any_number_of_images(model):
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(model, (TWO,), dynamic_shapes={"x": {0: batch}}).module()
    for images in (TWO, FIVE, FIVE[:1]):
        torch.testing.assert_close(program(images), model(images))


@pytest.mark.filterwarnings("ignore:`torch.jit.trace")
@torch.no_grad()
def test_a_traced_backbone_takes_any_number_of_images(model):
    if model.spec.passes[0].per_image:
        with pytest.raises(ValueError, match=r"use torch\.export"):
            torch.jit.trace(model, TWO)
        return
    program = torch.jit.trace(model, TWO)
    for images in (TWO, FIVE, FIVE[:1]):
        torch.testing.assert_close(program(images), model(images))


@torch.no_grad()
def test_no_images_have_no_features(model):
    none = TWO[:0]
    assert model(none).shape == (0, 5)
    assert model.forward_features(none).shape == (0, 6, model.num_features)
    assert [one.shape[0] for one in model.forward_intermediates(none, 2, intermediates_only=True)] == [0, 0]
    with pytest.raises(ValueError, match="expected images"):
        model(none[:, :1])


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_pixel_that_is_no_number_is_refused(model, value):
    images = TWO.clone()
    images[1, 0, 3, 4] = value
    with pytest.raises(ValueError, match="images hold NaN or infinity"):
        model(images)
