import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from sklearn.datasets import load_digits, load_sample_image

from randfeat.data import conditions

COMPUTED = [name for name, kind in conditions.KINDS.items() if not kind.given]


@pytest.fixture(scope="module")
def digits():
    return torch.tensor(load_digits().images[:64] / 16).float()[:, None]


@pytest.fixture(scope="module")
def photograph():
    return torch.tensor(load_sample_image("china.jpg")[::2, ::2] / 255).float().permute(2, 0, 1)[None]


@pytest.mark.parametrize("name", conditions.KINDS)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 3]), st.tuples(st.integers(2, 12), st.integers(2, 12)))
def test_a_condition_has_the_images_size_and_range_and_no_batch(name, seed, channels, size):
    images = torch.rand(3, channels, *size, generator=torch.Generator().manual_seed(seed))
    images[1] = 0.5
    before, made = images.clone(), conditions.make(images, name)
    assert made.shape == (3, conditions.KINDS[name].channels or channels, *size) or name == "image"
    assert made.dtype == torch.float32
    assert made.min() >= 0
    assert made.max() <= 1 + 1e-6
    assert torch.equal(images, before)
    if name in ("edges", "mask"):
        assert set(made.unique().tolist()) <= {0.0, 1.0}
    for one, alone in zip(made, images, strict=True):
        torch.testing.assert_close(conditions.make(alone[None], name)[0], one)
    if channels == 1:
        torch.testing.assert_close(conditions.make(images.expand(-1, 3, -1, -1), name).mean(1), made.mean(1))


@pytest.mark.parametrize("name", ["edges", "mask", "sketch"])
@pytest.mark.parametrize("size", [(8, 8), (40, 60), (256, 256)])
def test_a_flat_image_says_nothing(name, size):
    assert conditions.make(torch.full((1, 3, *size), 0.3), name).max() < 1e-4


@pytest.mark.parametrize("side", [8, 64, 200])
def test_a_step_has_an_edge_of_one_pixel(side):
    image = torch.zeros(1, 1, side, side)
    image[..., side // 2 :] = 0.5
    for picture in (image, image.mT, image.flip(-1), 1 - image):
        made = conditions.edges(picture)
        lines = made[0, 0] if picture.shape == image.shape and not torch.equal(picture, image.mT) else made[0, 0].T
        assert lines.sum(1).tolist() == [1] * side
        assert set(lines.nonzero()[:, 1].tolist()) <= {side // 2 - 1, side // 2}


def test_weak_edges_stay_where_they_hang_together_with_strong_ones():
    contrast = torch.linspace(0.5, 0.07, 200)  # it fades below `high`, over more pixels than one look reaches
    fading = torch.zeros(1, 1, 200, 8)
    fading[..., 4:] = contrast[:, None]
    assert conditions.edges(fading)[0, 0].sum(1).tolist() == [1] * 200
    alone = torch.zeros(1, 1, 24, 24)
    alone[..., 12:] = 0.07
    assert not conditions.edges(alone).any()
    assert conditions.edges(alone, high=0.06).any()


def test_edges_of_digits_and_of_a_photograph_are_thin_and_few(digits, photograph):
    for images, least, most in ((digits, 0.15, 0.5), (photograph, 0.02, 0.25)):
        made = conditions.edges(images)
        assert (made.mean((1, 2, 3)) > least).all()
        assert (made.mean((1, 2, 3)) < most).all()
        full = ndimage.uniform_filter(made.numpy(), (0, 0, 3, 3)) > 0.99  # 3 x 3 pixels of nothing but edges
        assert full.mean() < 0.005
    gradient = np.hypot(*np.gradient(conditions.grey(photograph)[0, 0].numpy()))
    on = conditions.edges(photograph)[0, 0].numpy() > 0
    assert gradient[on].mean() > 3 * gradient[~on].mean()


def test_low_resolution_is_the_mean_of_each_square(digits):
    made = conditions.lowres(digits)
    assert torch.allclose(made[:, :, ::4, ::4], digits.unflatten(2, (2, 4)).unflatten(4, (2, 4)).mean((3, 5)))
    assert torch.equal(made[:, :, 0, 0], made[:, :, 3, 3])


def test_the_mask_is_what_stands_before_the_ground(digits):
    made = conditions.mask(digits)
    assert ((digits * made).sum((1, 2, 3)) > 0.7 * digits.sum((1, 2, 3))).all()
    assert torch.equal(conditions.mask(1 - digits), made)  # dark on light
    square = torch.full((1, 3, 20, 30), 0.7)
    square[:, :, 5:10, 5:20] = torch.tensor([0.1, 0.2, 0.1]).view(3, 1, 1)
    expected = torch.zeros(1, 1, 20, 30)
    expected[:, :, 5:10, 5:20] = 1
    assert torch.equal(conditions.mask(square), expected)


def test_a_sketch_is_drawn_where_brightness_changes(photograph):
    made, edges = conditions.sketch(photograph), conditions.edges(photograph)
    assert made.max() == 1
    assert made[edges > 0].mean() > 2 * made[edges == 0].mean()


def test_what_is_no_kind_and_no_image_is_refused():
    with pytest.raises(
        ValueError, match="unknown kind of condition 'canny', expected one of edges, lowres, mask, sketch"
    ):
        conditions.make(torch.zeros(1, 1, 8, 8), "canny")
    with pytest.raises(ValueError, match=r"conditions are made of images \(B, 1 or 3, H, W\), got \(1, 2, 8, 8\)"):
        conditions.make(torch.zeros(1, 2, 8, 8), "edges")
