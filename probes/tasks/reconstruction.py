"""Reconstruction by tokenizers: errors of each image, use of the codes, and blocks at the borders of tokens.

Images are floats (n, channels, H, W) in [0, 1]. Errors are kept for each image, so that a data set of any size is
measured batch by batch, and two tokenizers are compared over the same images.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..stats import Difference, Interval, bootstrap, paired, ratio

IDENTICAL = 100.0  # dB, the highest PSNR that an image counts with
_WINDOW, _SIGMA = 11, 1.5  # of SSIM, in pixels (Wang et al. 2004, section III.C)
_SMALLEST = 3  # pixels of a side that SSIM can be computed on
Floats = NDArray[np.floating[Any]]

# numbers of an image -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ImageErrors:
    """Errors of n reconstructions, each (n,).

    l1: mean absolute error. mse: mean squared error. ssim: structural similarity, see `ssim`. across, inside: mean
    absolute differences of neighbouring pixels of the reconstruction, across the borders of tokens and inside tokens;
    real_across, real_inside: those of the original. They are NaN where there are no such neighbours.
    """

    l1: Floats
    mse: Floats
    ssim: Floats
    across: Floats
    inside: Floats
    real_across: Floats
    real_inside: Floats

    @property
    def psnr(self) -> Floats:
        """Peak signal-to-noise ratio in dB, see `psnr`."""
        return psnr(self.mse)

    def __len__(self) -> int:
        return len(self.mse)

    @classmethod
    def joined(cls, parts: Iterable[ImageErrors]) -> ImageErrors:
        """Return the errors of several batches as one."""
        listed = list(parts)
        return cls(*(np.concatenate([getattr(part, one.name) for part in listed]) for one in fields(cls)))


def image_errors(
    originals: ArrayLike, reconstructed: ArrayLike, stride: int, threads: Executor | None = None
) -> ImageErrors:
    """Return the errors of reconstructions. stride: pixels of a token's side. threads: to compute SSIM in.

    Raises a ValueError for images of other shapes or values than the module's.
    """
    real, made = _checked(originals, "originals"), _checked(reconstructed, "reconstructions")
    if real.shape != made.shape:
        raise ValueError(f"originals are {real.shape} and reconstructions {made.shape}: give the same images")
    error = np.abs(real - made).reshape(len(real), -1)
    similar = (threads.map if threads else map)(_ssim_of_one, real, made)
    return ImageErrors(
        error.mean(1, dtype=np.float64),
        np.square(error).mean(1, dtype=np.float64),
        np.array(list(similar)),
        *gradients(made, stride),
        *gradients(real, stride),
    )


def psnr(mse: ArrayLike) -> Floats:
    """Return the peak signal-to-noise ratio in dB of mean squared errors of values in [0, 1].

    That of identical images is infinite; it counts as `IDENTICAL`, 100 dB, and so does all above, so that means are
    finite.
    """
    return np.minimum(IDENTICAL, -10 * np.log10(np.maximum(np.asarray(mse, dtype=np.float64), 1e-30)))


def ssim(originals: ArrayLike, reconstructed: ArrayLike) -> Floats:
    """Return the structural similarity of pairs of images (n,), the mean over the channels.

    The settings are those of Wang et al. (2004): a Gaussian window of 11 x 11 pixels and sigma 1.5, population
    covariance, K1 = .01, K2 = .03, the mean over all windows inside the image. Where a side has fewer than 11 pixels,
    the window is the largest odd square that fits, and sigma shrinks with it. Raises a ValueError below 3 pixels.
    """
    pairs = zip(_checked(originals, "originals"), _checked(reconstructed, "reconstructions"), strict=True)
    return np.array([_ssim_of_one(real, made) for real, made in pairs])


def _ssim_of_one(real: Floats, made: Floats) -> float:
    """Return the structural similarity of two images (channels, H, W)."""
    from skimage.metrics import structural_similarity

    shortest = min(real.shape[1:])
    if shortest < _SMALLEST:
        raise ValueError(f"images of {real.shape[1]} x {real.shape[2]} pixels are too small for SSIM: give larger ones")
    window = min(_WINDOW, shortest - 1 + shortest % 2)
    more = dict(gaussian_weights=True, sigma=_SIGMA * window / _WINDOW, use_sample_covariance=False)
    return float(structural_similarity(real, made, data_range=1.0, channel_axis=0, **more))


# borders of tokens ---------------------------------------------------------------------------------------------------


def gradients(images: ArrayLike, stride: int) -> tuple[Floats, Floats]:
    """Return the mean absolute difference of neighbouring pixels of each image (n,): across the borders of tokens, and
    inside tokens. NaN where there are no such neighbours. stride: pixels of a token's side.
    """
    pixels = _checked(images, "images")
    sums, counts = np.zeros((2, len(pixels))), [0, 0]
    for axis in (2, 3):
        difference = np.abs(np.diff(pixels, axis=axis)).mean(axis=(1, 5 - axis), dtype=np.float64)  # (n, side - 1)
        borders = np.arange(1, pixels.shape[axis]) % stride == 0
        for kind, chosen in enumerate((borders, ~borders)):
            sums[kind] += difference[:, chosen].sum(1) * pixels.shape[5 - axis]
            counts[kind] += int(chosen.sum()) * pixels.shape[5 - axis]
    across, inside = (
        total / count if count else np.full(len(pixels), np.nan) for total, count in zip(sums, counts, strict=True)
    )
    return across, inside


def border_ratio(images: ArrayLike, stride: int) -> Interval | None:
    """Return the mean absolute difference of neighbouring pixels across the borders of tokens, divided by that inside
    tokens, over all images, with its bootstrap interval.

    About 1 for real images: those in blocks have more, and blurred borders less. stride: pixels of a token's side.
    None where an image is one token, a token is one pixel, or nothing changes inside tokens.
    """
    return _border_ratio(*gradients(images, stride))


def _border_ratio(across: Floats, inside: Floats) -> Interval | None:
    there = np.isfinite(across).all() and np.isfinite(inside).all()
    return ratio(across, inside) if there else None


# codes ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CodeUse:
    """Use of a codebook.

    tokens: number of tokens that were counted. vocab_size: codes. used: codes that occur. usage: their share.
    entropy: of the codes' frequencies, in bits. perplexity: the number of equally frequent codes of the same entropy.
    """

    tokens: int
    vocab_size: int
    used: int
    usage: float
    entropy: float
    perplexity: float


def code_use(counts: ArrayLike) -> CodeUse:
    """Return the use of a codebook. counts: occurrences of each code (V,). Raises a ValueError where there is none."""
    numbers = np.asarray(counts, dtype=np.int64)
    if numbers.ndim != 1 or numbers.sum() < 1 or numbers.min() < 0:
        raise ValueError("counts are the occurrences of each code, (V,), with one token or more")
    shares = numbers[numbers > 0] / numbers.sum()
    entropy = max(0.0, float(-(shares * np.log2(shares)).sum()))
    return CodeUse(int(numbers.sum()), len(numbers), len(shares), len(shares) / len(numbers), entropy, 2**entropy)


# a tokenizer ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class TokenizerQuality:
    """Reconstructions of a data set by a tokenizer.

    name: of the tokenizer. errors: of the n images. counts: occurrences of each code (V,). size: height and width of
    the images. stride: pixels of a token's side. frechet: Fréchet distance of originals and reconstructions, None where
    it was not computed.
    """

    name: str
    errors: ImageErrors
    counts: NDArray[np.int64]
    size: tuple[int, int]
    stride: int
    frechet: float | None = None

    @property
    def codes(self) -> CodeUse:
        """Use of the codes."""
        return code_use(self.counts)

    @property
    def bits_a_pixel(self) -> float:
        """Bits of an image's tokens, all codes being of the same length, divided by its height times width."""
        return math.log2(len(self.counts)) / self.stride**2

    @property
    def entropy_a_pixel(self) -> float:
        """Bits a pixel of an entropy coder that knows how frequent each code is, and nothing of its neighbours."""
        return self.codes.entropy / self.stride**2

    def scores(self) -> dict[str, Interval]:
        """Return the means over images, with 95 % bootstrap intervals: psnr, ssim, l1 and mse."""
        return {name: bootstrap(getattr(self.errors, name)) for name in ("psnr", "ssim", "l1", "mse")}

    def borders(self) -> tuple[Interval | None, Interval | None]:
        """Return `border_ratio` of the reconstructions and of the originals, None where there is no such ratio."""
        errors = self.errors
        made = _border_ratio(errors.across, errors.inside)
        return made, _border_ratio(errors.real_across, errors.real_inside)

    def as_dict(self) -> dict[str, Any]:
        """Return all numbers as JSON values."""
        made, real = self.borders()
        found: dict[str, Any] = {name: one.as_dict() for name, one in self.scores().items()}
        found |= {"border_ratio": made and made.as_dict(), "real_border_ratio": real and real.as_dict()}
        found |= {"codes": asdict(self.codes), "stride": self.stride, "tokens_an_image": self.tokens_an_image}
        found |= {"bits_a_pixel": self.bits_a_pixel, "entropy_a_pixel": self.entropy_a_pixel, "frechet": self.frechet}
        return found

    @property
    def tokens_an_image(self) -> int:
        """Tokens of an image."""
        return self.size[0] * self.size[1] // self.stride**2


@dataclass(frozen=True)
class TokenizerComparison:
    """Reconstructions by a tokenizer `a` beside those by `b`, over the same images.

    mse_ratio, l1_ratio: mean error of a divided by that of b, None where b makes (almost) no error. psnr, ssim: mean
    differences a - b.
    """

    a: str
    b: str
    mse_ratio: Interval | None
    l1_ratio: Interval | None
    psnr: Difference
    ssim: Difference


def compare_tokenizers(a: TokenizerQuality, b: TokenizerQuality) -> TokenizerComparison:
    """Return the paired comparison of two tokenizers, with 95 % bootstrap intervals over the images.

    Raises a ValueError where they were measured on other numbers of images.
    """
    return TokenizerComparison(
        a.name,
        b.name,
        ratio(a.errors.mse, b.errors.mse),
        ratio(a.errors.l1, b.errors.l1),
        paired(a.errors.psnr, b.errors.psnr),
        paired(a.errors.ssim, b.errors.ssim),
    )


def _checked(images: ArrayLike, what: str) -> Floats:
    """Return images as floats (n, channels, H, W); a ValueError for others."""
    pixels = np.asarray(images)
    if pixels.ndim != 4 or not pixels.size or not np.issubdtype(pixels.dtype, np.floating):
        raise ValueError(f"{what} are {pixels.dtype} {pixels.shape}, expected floats (n, channels, H, W) in [0, 1]")
    if not (pixels.min() >= 0 and pixels.max() <= 1):
        raise ValueError(f"{what} have values from {pixels.min():.3g} to {pixels.max():.3g}, expected 0 to 1")
    return pixels
