import math
import re

import pytest
import timm
import torch
import torch.nn.functional as F
from randfeat.pretrain.vq import losses
from randfeat.pretrain.vq.losses import PatchDiscriminator, Perceptual
from torch import nn


@pytest.fixture(scope="module")
def perceptual():
    torch.manual_seed(0)
    return Perceptual("test_resnet", fresh=True)


@pytest.fixture
def discriminator():
    torch.manual_seed(0)
    return PatchDiscriminator(3, 8, 2)


def pair(channels=3, size=28, count=2):
    draw = torch.Generator().manual_seed(channels)
    return [torch.rand(count, channels, size, size, generator=draw) for _ in range(2)]


# perceptual distance ------------------------------------------------------------------------------------------


WIDTHS = ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3)  # of VGG-16's convolutions between its poolings


def lpips_by_hand(state, linear, images, others):
    """Return what the published LPIPS computes of images in [-1, 1]: its own layers, one after another."""
    shift = torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1)
    convolutions = [name.removesuffix(".weight") for name in state if re.fullmatch(r"features\.\d+\.weight", name)]
    maps, total = [(x - shift) / scale for x in (images, others)], 0
    for block, widths in enumerate(WIDTHS):
        if block:
            maps = [F.max_pool2d(x, 2) for x in maps]
        for width in widths:
            name = convolutions.pop(0)
            weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
            assert len(weight) == width
            maps = [F.conv2d(x, weight, bias, padding=1).relu() for x in maps]
        one, other = (x / (x.pow(2).sum(1, keepdim=True).sqrt() + 1e-10) for x in maps)
        total = total + F.conv2d((one - other) ** 2, linear[f"lin{block}.model.1.weight"]).mean((1, 2, 3))
    assert not convolutions
    return total


def test_lpips_is_the_official_one(tmp_path, monkeypatch):
    torch.manual_seed(0)
    # the layers behind the convolutions, which LPIPS does not read, are seven eighths of the weights
    monkeypatch.setattr(timm.models.vgg, "ConvMlp", lambda *_, **__: nn.Identity())
    with torch.device("meta"):
        shapes = timm.create_model("vgg16", num_classes=0).state_dict()
    state = {name: torch.randn(value.shape) * value[0].numel() ** -0.5 for name, value in shapes.items()}
    linear = {f"lin{i}.model.1.weight": torch.rand(1, w[0], 1, 1) for i, w in enumerate(WIDTHS)}
    torch.save(state, tmp_path / "vgg16.pth")
    torch.save(linear, tmp_path / "vgg.pth")
    lpips = Perceptual(f"vgg16@{tmp_path / 'vgg16.pth'}", lpips=tmp_path / "vgg.pth")
    for size in (28, 64):
        images, others = pair(size=size)
        expected = lpips_by_hand(state, linear, 2 * images - 1, 2 * others - 1)
        assert expected.min() > 0.1
        torch.testing.assert_close(lpips.distances(images, others), expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(lpips(images, others), expected.mean(), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"vgg16 without stages"):
        Perceptual("test_resnet", lpips=tmp_path / "vgg.pth", fresh=True)
    with pytest.raises(ValueError, match=r"takes no images of 8 x 8 pixels"):
        lpips.check((8, 8))
    del linear["lin3.model.1.weight"]
    torch.save(linear, tmp_path / "cut.pth")
    with pytest.raises(ValueError, match=r"cut\.pth holds no linear layers of LPIPS for vgg16"):
        losses._linear_layers(tmp_path / "cut.pth", [w[0] for w in WIDTHS])


def test_the_distance_is_that_of_the_stages_of_timm(perceptual):
    network = timm.create_model("test_resnet", features_only=True).eval()
    state = perceptual._frozen[0].model.state_dict()
    network.load_state_dict({name: state[name] for name in network.state_dict()})
    mean, std = (torch.tensor(network.default_cfg[name]).view(3, 1, 1) for name in ("mean", "std"))
    images, others = pair()
    stages = []
    for one, other in zip(network((images - mean) / std), network((others - mean) / std), strict=True):
        cosine = F.cosine_similarity(one, other, dim=1)
        stages.append((2 - 2 * cosine).mean((1, 2)))
    torch.testing.assert_close(perceptual.distances(images, others), sum(stages), rtol=1e-4, atol=1e-5)
    torch.manual_seed(0)
    some = Perceptual("test_resnet", (-2, 1), fresh=True)
    torch.testing.assert_close(some.distances(images, others), stages[0] + stages[-2], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="numbered 1 to 5, got"):
        Perceptual("test_resnet", (6,), fresh=True)


@pytest.mark.parametrize("size", [28, 64])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_any_number_of_channels_is_compared(perceptual, channels, size):
    images, others = pair(channels, size)
    found = perceptual.distances(images, others)
    assert found.shape == (2,)
    assert found.min() > 0
    assert torch.equal(found, perceptual.distances(images, others))
    assert perceptual(images, images) == 0
    if channels != 3:
        grey = [[x[:, i : i + 1].expand(-1, 3, -1, -1) for i in range(channels)] for x in (images, others)]
        expected = sum(perceptual.distances(one, other) for one, other in zip(*grey, strict=True)) / channels
        torch.testing.assert_close(found, expected)


def test_the_network_is_frozen_and_in_no_checkpoint(perceptual):
    images, others = pair()
    others.requires_grad_()
    perceptual.train()
    perceptual(images, others).backward()
    assert others.grad.abs().sum() > 0
    model = perceptual._frozen[0].model
    assert not model.training
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())
    assert [*perceptual.named_parameters(), *perceptual.named_buffers(), *perceptual.children()] == []
    assert perceptual.state_dict() == {}
    try:
        perceptual.to(torch.float64)
        assert perceptual(images.double(), others.double()).dtype == torch.float32
        assert next(model.parameters()).dtype == torch.float64
    finally:
        perceptual.to(torch.float32)


def test_equal_and_constant_images_have_finite_gradients(perceptual):
    for images in (torch.zeros(1, 3, 28, 28), pair()[0]):
        others = images.clone().requires_grad_()
        perceptual(images, others).backward()
        assert others.grad.isfinite().all()


def test_networks_of_one_size_say_so():
    fixed = Perceptual("test_vit", fresh=True)
    with pytest.raises(ValueError, match=r"test_vit takes no images of 28 x 28 pixels at these stages: choose"):
        fixed(*pair())
    resized = Perceptual("test_vit?img_size=32", fresh=True)
    assert resized(*pair(size=32)) > 0
    with pytest.raises(ValueError, match="timm has no model 'test_vitt': did you mean"):
        Perceptual("test_vitt")


# discriminator ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("size", "layers", "side"), [(28, 3, 1), (28, 2, 5), (64, 3, 6)])
def test_a_discriminator_judges_patches(channels, size, layers, side):
    torch.manual_seed(0)
    network = PatchDiscriminator(channels, 8, layers)
    images, others = pair(channels, size)
    logits = network(images)
    assert logits.shape == (2, 1, side, side)
    alone = torch.cat([network(image[None]) for image in images])  # no image depends on those beside it
    torch.testing.assert_close(logits, alone)
    assert torch.equal(logits, network(images))
    assert not torch.equal(logits, network(others))


def test_small_images_and_wrong_sizes_of_a_discriminator_are_one_sentence():
    PatchDiscriminator(1, 4, 3).check((24, 40))
    with pytest.raises(ValueError, match=r"3 layers needs 24 pixels a side, and images are 40 x 23: take 2 or fewer"):
        PatchDiscriminator(1, 4, 3)(torch.rand(1, 1, 40, 23))
    with pytest.raises(ValueError, match=r"images are 5 x 5: take larger images, or no discriminator"):
        PatchDiscriminator(1, 4, 1).check((5, 5))
    assert PatchDiscriminator(1, 4, 1)(torch.rand(1, 1, 6, 6)).shape == (1, 1, 1, 1)
    with pytest.raises(ValueError, match="at least 1 channel, width and layer, got 3, 64 and 0"):
        PatchDiscriminator(layers=0)


def test_hinge_losses():
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.0, 1.0])
    assert losses.hinge_discriminator_loss(real, fake).item() == pytest.approx((2.5 / 3 + 3 / 3) / 2)
    assert losses.hinge_generator_loss(fake).item() == pytest.approx(2 / 3)


def test_one_backward_pass_trains_each_side_by_its_own_loss(discriminator):
    decoder = nn.Conv2d(3, 3, 1)
    images, latents = pair()
    made = decoder(latents)
    generator_loss = losses.generator_loss(discriminator, made)
    assert generator_loss == losses.hinge_generator_loss(discriminator(made))
    assert all(p.requires_grad for p in discriminator.parameters())
    (generator_loss + losses.discriminator_loss(discriminator, images, made)).backward()
    together = {name: p.grad for net in (decoder, discriminator) for name, p in net.named_parameters()}

    adversarial = losses.hinge_generator_loss(discriminator(decoder(latents)))
    expected = torch.autograd.grad(adversarial, [*decoder.parameters()])
    judged = losses.hinge_discriminator_loss(discriminator(images), discriminator(made.detach()))
    expected += torch.autograd.grad(judged, [*discriminator.parameters()])
    for found, wanted in zip(together.values(), expected, strict=True):
        torch.testing.assert_close(found, wanted)
    # of the last bias the gradients of both kinds of image cancel out
    assert all(gradient.abs().sum() > 0 for gradient in together.values() if gradient.ndim > 1)


def test_the_generators_loss_leaves_the_discriminator_without_gradient(discriminator):
    made = pair()[0].requires_grad_()
    losses.generator_loss(discriminator, made).backward()
    assert made.grad.abs().sum() > 0
    assert all(p.grad is None for p in discriminator.parameters())


def test_the_adaptive_weight_is_the_ratio_of_gradients_at_the_last_layer(discriminator):
    decoder = nn.Conv2d(3, 3, 3, padding=1)
    images, latents = pair()
    made = decoder(latents)
    reconstruction, adversarial = F.mse_loss(made, images), losses.generator_loss(discriminator, made)
    weight = losses.adaptive_weight(reconstruction, adversarial, decoder.weight)
    assert not weight.requires_grad
    (reconstruction + weight * adversarial).backward()  # the graph is still there
    lengths = []
    for loss in (lambda x: F.mse_loss(x, images), lambda x: losses.generator_loss(discriminator, x)):
        decoder.zero_grad()
        loss(decoder(latents)).backward()
        lengths.append(math.sqrt(decoder.weight.grad.square().sum()))
    assert weight.item() == pytest.approx(lengths[0] / (lengths[1] + 1e-4), rel=1e-4)
    nothing = 0 * losses.generator_loss(discriminator, decoder(latents))
    assert losses.adaptive_weight(1e6 * F.mse_loss(decoder(latents), images), nothing, decoder.weight) == 1e4


def test_losses_work_in_bfloat16(perceptual, discriminator):
    images, latents = pair()
    decoder = nn.Conv2d(3, 3, 1)
    values = []
    for half in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            made = decoder(latents)
            terms = [
                perceptual(images, made),
                losses.generator_loss(discriminator, made),
                losses.discriminator_loss(discriminator, images, made),
            ]
            weight = losses.adaptive_weight(terms[0], terms[1], decoder.weight)
        assert all(term.dtype == torch.float32 for term in [*terms, weight])
        (terms[0] + weight * terms[1] + terms[2]).backward()
        assert all(p.grad.isfinite().all() for net in (decoder, discriminator) for p in net.parameters())
        values.append(torch.stack(terms))
    torch.testing.assert_close(values[1], values[0], rtol=0.05, atol=0.01)
