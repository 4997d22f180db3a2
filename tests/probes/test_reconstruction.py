"""Errors of reconstructions, use of codes and borders of tokens, beside scikit-image and loops."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from randfeat.probes.stats import ratio
from randfeat.probes.tasks.reconstruction import (
    IDENTICAL,
    ImageErrors,
    TokenizerQuality,
    border_ratio,
    code_use,
    compare_tokenizers,
    gradients,
    image_errors,
    psnr,
    ssim,
)
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

WANG = dict(gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0, channel_axis=0)


def noisy(n=5, channels=3, height=16, width=24, noise=0.1, seed=0):
    """Images, and the same with noise."""
    rng = np.random.default_rng(seed)
    real = rng.random((n, channels, height, width), dtype=np.float32)
    made = np.clip(real + noise * rng.standard_normal(real.shape, dtype=np.float32), 0, 1)
    return real, made


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_errors_are_those_of_scikit_image(channels):
    real, made = noisy(channels=channels)
    found = image_errors(real, made, 8)
    for i, (a, b) in enumerate(zip(real.astype(np.float64), made.astype(np.float64), strict=True)):
        assert found.mse[i] == pytest.approx(mean_squared_error(a, b), rel=1e-5)
        assert found.psnr[i] == pytest.approx(peak_signal_noise_ratio(a, b, data_range=1), rel=1e-5)
        assert found.ssim[i] == pytest.approx(structural_similarity(a, b, **WANG), abs=1e-5)
        assert found.l1[i] == pytest.approx(np.abs(a - b).mean(), rel=1e-5)


def gaussian(window, sigma):
    x = np.arange(window) - window // 2
    line = np.exp(-(x**2) / (2 * sigma**2))
    return np.outer(line, line) / line.sum() ** 2


@pytest.mark.parametrize(("height", "width", "window"), [(13, 12, 11), (11, 30, 11), (10, 12, 9), (8, 8, 7), (3, 9, 3)])
def test_ssim_is_the_mean_over_windows_as_the_paper_has_it(height, width, window):
    """Small images get a smaller window, whose sigma is in proportion."""
    real, made = (x.astype(np.float64) for x in noisy(2, 1, height, width))
    weight = gaussian(window, 1.5 * window / 11)
    for i in range(2):
        values = []
        for top in range(height - window + 1):
            for left in range(width - window + 1):
                x, y = (p[i, 0, top : top + window, left : left + window] for p in (real, made))
                mx, my = (weight * x).sum(), (weight * y).sum()
                vx, vy, vxy = (
                    (weight * (p - m) * (q - n)).sum()
                    for p, m, q, n in ((x, mx, x, mx), (y, my, y, my), (x, mx, y, my))
                )
                c1, c2 = 0.01**2, 0.03**2
                values.append((2 * mx * my + c1) * (2 * vxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
        assert ssim(real, made)[i] == pytest.approx(np.mean(values), abs=1e-9)


def test_identical_and_constant_images():
    real, _ = noisy()
    same = image_errors(real, real, 8)
    assert (same.psnr == IDENTICAL).all()
    assert same.ssim == pytest.approx(1)
    assert not same.l1.any()
    black, white = np.zeros((2, 1, 12, 12)), np.ones((2, 1, 12, 12))
    worst = image_errors(black, white, 4)
    assert worst.psnr == pytest.approx(0)
    assert worst.ssim == pytest.approx(0.01**2 / (1 + 0.01**2))
    assert psnr([0, 1e-20, 0.01]).tolist() == pytest.approx([100, 100, 20])


def test_threads_and_batches_change_nothing():
    real, made = noisy(7)
    with ThreadPoolExecutor(2) as threads:
        parts = [image_errors(real[i : i + 3], made[i : i + 3], 8, threads) for i in (0, 3, 6)]
    whole, joined = image_errors(real, made, 8), ImageErrors.joined(parts)
    assert len(joined) == 7
    for name in ("l1", "mse", "ssim", "across", "inside", "real_across", "real_inside"):
        np.testing.assert_allclose(getattr(whole, name), getattr(joined, name), rtol=1e-12)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5), st.integers(1, 3), st.integers(0, 99))
def test_gradients_are_those_of_a_loop(rows, columns, stride, channels, seed):
    images = np.random.default_rng(seed).random((2, channels, rows * stride, columns * stride))
    for image, *found in zip(images, *gradients(images, stride), strict=True):
        kinds = {True: [], False: []}
        _, height, width = image.shape
        for y in range(height):
            for x in range(width):
                for down, right in ((1, 0), (0, 1)):
                    if y + down < height and x + right < width:
                        border = (y // stride, x // stride) != ((y + down) // stride, (x + right) // stride)
                        kinds[border].append(np.abs(image[:, y, x] - image[:, y + down, x + right]).mean())
        for kind, value in zip((True, False), found, strict=True):
            assert value == pytest.approx(np.mean(kinds[kind]) if kinds[kind] else math.nan, nan_ok=True)


def test_borders_of_blocks():
    """A slope has the same gradient everywhere; steps of its height make the borders twice as steep."""
    slope = np.add.outer(np.arange(16), np.arange(16))[None, None] / 64
    assert border_ratio(slope, 4).value == pytest.approx(1)
    tiles = np.add.outer(np.arange(16) // 4, np.arange(16) // 4)[None, None] / 64
    assert border_ratio(slope + tiles, 4).value == pytest.approx(2)
    assert border_ratio(slope + tiles, 8).value == pytest.approx(2 / (16 / 14))  # 2 of 14 steps are inside now
    assert border_ratio(tiles, 4) is None  # nothing changes inside tokens
    assert border_ratio(slope, 16) is None  # one token
    assert border_ratio(slope, 1) is None  # of one pixel
    many, _ = noisy(200, 1, 16, 16)
    found = border_ratio(many, 4)
    assert found.low < 1 < found.high
    assert found.n == 200


def test_use_of_codes():
    use = code_use([4, 0, 4, 4, 4, 0, 0, 0])
    assert (use.tokens, use.used, use.usage, use.entropy, use.perplexity) == (16, 4, 0.5, 2, 4)
    assert code_use([0, 9]).perplexity == 1
    counts = np.random.default_rng(0).integers(0, 9, 50)
    shares = counts[counts > 0] / counts.sum()
    assert code_use(counts).perplexity == pytest.approx(np.prod(shares**-shares))
    for wrong in ([], [0, 0], [[1, 2]], [3, -1]):
        with pytest.raises(ValueError, match="with one token or more"):
            code_use(wrong)


def measured(name, noise, n=40, **more):
    real, made = noisy(n, 1, 16, 16, noise)
    return TokenizerQuality(name, image_errors(real, made, 4), np.array([3, 1, 0, 0]), (16, 16), 4, **more)


def test_a_tokenizers_numbers():
    one = measured("one", 0.1, frechet=2.5)
    assert one.tokens_an_image == 16
    assert one.bits_a_pixel == 2 / 16
    assert one.entropy_a_pixel == pytest.approx((0.75 * math.log2(4 / 3) + 0.5) / 16)
    found = one.as_dict()
    assert found["mse"]["low"] < found["mse"]["value"] < found["mse"]["high"]
    assert found["mse"]["value"] == pytest.approx(one.errors.mse.mean())
    assert found["codes"]["usage"] == 0.5
    assert found["frechet"] == 2.5
    assert found["real_border_ratio"]["value"] == pytest.approx(1, abs=0.1)


def test_two_tokenizers_over_the_same_images():
    better, worse = measured("better", 0.05), measured("worse", 0.1)
    found = compare_tokenizers(better, worse)
    assert found.mse_ratio.value == pytest.approx(better.errors.mse.mean() / worse.errors.mse.mean())
    assert found.mse_ratio.high < 0.5
    assert found.psnr.low > 4
    assert found.psnr.p < 0.01
    perfect = measured("perfect", 0)
    assert compare_tokenizers(better, perfect).mse_ratio is None
    assert compare_tokenizers(perfect, better).mse_ratio.value == 0
    with pytest.raises(ValueError, match="on the same images"):
        compare_tokenizers(better, measured("other", 0.1, 39))


@pytest.mark.parametrize(
    ("real", "made", "message"),
    [
        (np.zeros((2, 8, 8)), np.zeros((2, 8, 8)), r"originals are float64 \(2, 8, 8\)"),
        (np.zeros((2, 1, 8, 8), np.uint8), np.zeros((2, 1, 8, 8)), "originals are uint8"),
        (np.zeros((2, 1, 8, 8)), np.full((2, 1, 8, 8), 1.5), "reconstructions have values from 1.5 to 1.5"),
        (np.zeros((2, 1, 8, 8)), np.full((2, 1, 8, 8), np.nan), "reconstructions have values from nan"),
        (np.zeros((2, 1, 8, 8)), np.zeros((1, 1, 8, 8)), "give the same images"),
        (np.zeros((2, 1, 2, 8)), np.zeros((2, 1, 2, 8)), "2 x 8 pixels are too small for SSIM"),
    ],
)
def test_bad_images_are_one_sentence(real, made, message):
    with pytest.raises(ValueError, match=message):
        image_errors(real, made, 2)


def test_what_a_ratio_is_drawn_from():
    """Both means of a draw are of the same images: a constant ratio has no spread."""
    scores = np.random.default_rng(0).random(30)
    exact = ratio(3 * scores, scores)
    assert (exact.value, exact.low, exact.high) == pytest.approx((3, 3, 3))
    other = np.random.default_rng(1).random(30)
    found = ratio(other, scores, draws=500, seed=3)
    rng = np.random.default_rng(5)
    drawn = [rng.integers(0, 30, 30) for _ in range(4000)]
    low, high = np.percentile([other[d].mean() / scores[d].mean() for d in drawn], (2.5, 97.5))
    assert (found.low, found.high) == pytest.approx((low, high), rel=0.1)
    assert ratio(scores, np.zeros(30)) is None
    assert ratio(scores, np.eye(1, 30)[0]) is None  # a third of the draws lack the only error
