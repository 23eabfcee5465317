"""Confidence intervals: of a mean, a proportion, a paired difference, a ratio of sums.

Every interval is two-sided. They need counts and sums only, so a comparison can stream any number of
images in constant memory. (`ratio_of_sums` is the exception: it needs every sample.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "CONFIDENCE",
    "DECIBELS_PER_NEPER",
    "Estimate",
    "Moments",
    "PairMoments",
    "decibel_estimate",
    "decibels",
    "difference_of_proportions",
    "inner_product",
    "percent",
    "percent_of_mean",
    "proportion",
    "ratio_of_sums",
    "samples_needed",
    "student_quantile",
]

CONFIDENCE = 0.95

DECIBELS_PER_NEPER = 10.0 / math.log(10.0)


@dataclass(frozen=True)
class Estimate:
    """A value and its interval at `CONFIDENCE`; infinite ends mean that nothing is known."""

    value: float
    low: float
    high: float

    def holds(self, value: float) -> bool:
        """Say whether `value` lies inside the interval."""
        return self.low <= value <= self.high

    def times(self, factor: float) -> Estimate:
        """Return the estimate in another unit; `factor` is positive."""
        return Estimate(self.value * factor, self.low * factor, self.high * factor)

    def within(self, least: float, greatest: float) -> Estimate:
        """Return the estimate with its interval cut to the values that are possible."""
        return Estimate(self.value, max(self.low, least), min(self.high, greatest))


def student_quantile(probability: float, degrees: int) -> float:
    """Quantile of Student's t distribution; exact for 1 and 2 degrees of freedom.

    Else by the Cornish-Fisher expansion about the normal quantile (Abramowitz and Stegun 26.7.5);
    at 97.5 % it is off by 0.5 % with 3 degrees of freedom and by 1e-5 with 10.

    Raises:
        ValueError: fewer than 1 degree of freedom.
    """
    if degrees < 1:
        raise ValueError("a t distribution needs at least 1 degree of freedom")
    if degrees == 1:
        return math.tan(math.pi * (probability - 0.5))
    if degrees == 2:
        centred = 2.0 * probability - 1.0
        return centred * math.sqrt(2.0 / (1.0 - centred * centred))
    z = NormalDist().inv_cdf(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / degrees ** (power + 1) for power, term in enumerate(terms))


class Moments:
    """Running count, mean and variance of one quantity (Welford 1962)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self._squares = 0.0

    def add(self, value: float) -> None:
        """Take one more value."""
        self.count += 1
        step = value - self.mean
        self.mean += step / self.count
        self._squares += step * (value - self.mean)

    @property
    def variance(self) -> float:
        """Unbiased variance; 0 with fewer than two values."""
        return self._squares / (self.count - 1) if self.count > 1 else 0.0

    def estimate(self, confidence: float = CONFIDENCE) -> Estimate:
        """Return the mean with its Student interval; infinite with fewer than two values."""
        if self.count < 2:
            return Estimate(self.mean, -math.inf, math.inf)
        quantile = student_quantile(0.5 + confidence / 2, self.count - 1)
        half = quantile * math.sqrt(self.variance / self.count)
        return Estimate(self.mean, self.mean - half, self.mean + half)


class PairMoments:
    """Running sums of pairs (numerator, denominator), for the ratio of their sums."""

    def __init__(self) -> None:
        self.numerator = Moments()
        self.denominator = Moments()
        self._products = 0.0

    def add(self, numerator: float, denominator: float) -> None:
        """Take one more pair."""
        step = numerator - self.numerator.mean
        self.numerator.add(numerator)
        self.denominator.add(denominator)
        self._products += step * (denominator - self.denominator.mean)

    def log_ratio(self, confidence: float = CONFIDENCE) -> Estimate:
        """Return ``ln(sum of numerators / sum of denominators)`` with its delta-method interval.

        The variance is ``(var(a)/mean(a)^2 + var(b)/mean(b)^2 - 2 cov(a,b)/(mean(a) mean(b))) / n``
        (Cochran, Sampling Techniques, chapter 6). A zero sum gives an infinite value.
        """
        top, bottom, count = self.numerator.mean, self.denominator.mean, self.numerator.count
        if not top > 0 or not bottom > 0:
            value = math.inf if bottom <= 0 else -math.inf
            return Estimate(value, value, value)
        value = math.log(top) - math.log(bottom)
        if count < 2:
            return Estimate(value, -math.inf, math.inf)
        covariance = self._products / (count - 1)
        relative = (
            self.numerator.variance / top**2
            + self.denominator.variance / bottom**2
            - 2 * covariance / (top * bottom)
        )
        quantile = student_quantile(0.5 + confidence / 2, count - 1)
        half = quantile * math.sqrt(max(relative, 0.0) / count)
        return Estimate(value, value - half, value + half)


def inner_product(x: np.ndarray, y: np.ndarray) -> float:
    """Return the sum of ``x y`` over two float64 arrays ``[n]``.

    Not by BLAS: its threads spin while they wait, on busy cores for longer than the sum takes, and the last
    bits depend on their number.
    """
    return float(np.einsum("i,i->", x, y))


def decibels(signal: float, noise: float) -> float:
    """Return ``10 log10(signal / noise)``: infinite without noise, minus infinite without signal."""
    if noise == 0.0:
        return math.inf
    return 10.0 * math.log10(signal / noise) if signal > 0.0 else -math.inf


def decibel_estimate(signal: float, noise: float, log_ratio: Estimate) -> Estimate:
    """Return `decibels`, with the interval of `log_ratio` (`PairMoments.log_ratio`) in dB around it."""
    value = decibels(signal, noise)
    if math.isinf(value):
        return Estimate(value, value, value)
    below, above = log_ratio.value - log_ratio.low, log_ratio.high - log_ratio.value
    return Estimate(value, value - DECIBELS_PER_NEPER * below, value + DECIBELS_PER_NEPER * above)


def proportion(successes: int, trials: int, confidence: float = CONFIDENCE) -> Estimate:
    """Return ``successes / trials`` with Wilson's score interval (Wilson 1927), as shares of 1.

    Raises:
        ValueError: no trials.
    """
    if trials < 1:
        raise ValueError("a proportion needs at least one trial")
    share = successes / trials
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    shrink = 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return Estimate(share, max(0.0, centre - half), min(1.0, centre + half))


def percent(successes: int, trials: int) -> Estimate:
    """Return `proportion` in percent."""
    return proportion(successes, trials).times(100.0)


def percent_of_mean(shares: Moments) -> Estimate:
    """Return the mean of shares of 1 in percent, its interval within 0 to 100.

    Student's interval; Wilson's where all shares are 0 or all are 1, since a few equal values prove little.
    """
    if shares.count and shares.variance == 0.0 and shares.mean in (0.0, 1.0):
        return percent(round(shares.mean) * shares.count, shares.count)
    return shares.estimate().times(100.0).within(0.0, 100.0)


def ratio_of_sums(tops: Sequence[float], bottoms: Sequence[float]) -> Estimate | None:
    """Return ``sum(tops) / sum(bottoms)`` over samples, with its percentile bootstrap interval.

    Samples are drawn 1000 times, always with the same random numbers (Efron and Tibshirani, An
    Introduction to the Bootstrap, chapter 13). For few samples that interval is too narrow, so it is widened
    to hold Student's by the delta method (Cochran, Sampling Techniques, chapter 6). Where all draws agree
    (every sample has a ratio of 0, or every one of 1), it is Wilson's over samples.

    Args:
        tops: numerator of each sample, not negative.
        bottoms: denominators of the same samples.

    Returns:
        None where the bottoms sum to zero.
    """
    top, bottom = np.asarray(tops, np.float64), np.asarray(bottoms, np.float64)
    count = int(np.count_nonzero(bottom))
    if not count:
        return None
    value = float(top.sum() / bottom.sum())
    if value in (0.0, 1.0) and np.array_equal(top, value * bottom):
        share = proportion(round(value) * count, count)
        return Estimate(value, share.low, share.high)
    if len(top) < 2:
        return Estimate(value, -math.inf, math.inf)
    draws = np.concatenate(list(_resampled_ratios(top, bottom)))
    edge = (1 - CONFIDENCE) / 2
    low, high = np.quantile(draws[np.isfinite(draws)], [edge, 1 - edge])
    spread = float(np.std(top - value * bottom, ddof=1)) / (float(bottom.mean()) * len(top) ** 0.5)
    half = student_quantile(1 - edge, len(top) - 1) * spread
    most = 1.0 if (top <= bottom).all() else math.inf
    low, high = max(min(float(low), value - half), 0.0), min(max(float(high), value + half), most)
    return Estimate(value, low, high)


_NUM_DRAWS = 1000
_AT_ONCE = 50


def _resampled_ratios(top: np.ndarray, bottom: np.ndarray) -> Iterator[np.ndarray]:
    rng, shares = np.random.default_rng(0), np.full(len(top), 1 / len(top))
    for _ in range(_NUM_DRAWS // _AT_ONCE):
        weights = rng.multinomial(len(top), shares, size=_AT_ONCE)
        with np.errstate(invalid="ignore", divide="ignore"):
            yield (weights @ top) / (weights @ bottom)


def difference_of_proportions(
    only_first: int, only_second: int, trials: int, confidence: float = CONFIDENCE
) -> Estimate:
    """Return the difference of two paired proportions, ``(only_first - only_second) / trials``.

    The same images are judged twice; `only_first` counts images that only the first judged right.
    The interval is Bonett and Price's adjusted Wald interval (2012), which adds one to each of the
    two counts and keeps its coverage for small numbers.

    Raises:
        ValueError: no trials.
    """
    if trials < 1:
        raise ValueError("a proportion needs at least one trial")
    first, second = (only_first + 1) / (trials + 2), (only_second + 1) / (trials + 2)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    half = z * math.sqrt((first + second - (first - second) ** 2) / (trials + 2))
    centre = first - second
    return Estimate(
        (only_first - only_second) / trials, max(-1.0, centre - half), min(1.0, centre + half)
    )


def samples_needed(estimate: Estimate, limit: float, num_samples: int) -> int | None:
    """Return how many samples bring the interval clear of `limit`, if the figure itself does not change.

    A share in percent with Wilson's interval shrinks as that interval does: near full agreement faster than
    with the root of the number. Any other interval shrinks with the root, or, for a figure of 0 (nothing
    differed), with the number itself.

    Args:
        estimate: an estimate whose interval holds `limit`.
        limit: the value that the interval must not hold.
        num_samples: how many samples the estimate comes from.

    Returns:
        None if unknown: the figure equals the limit, or has no interval.
    """
    below = limit < estimate.value
    half = estimate.value - estimate.low if below else estimate.high - estimate.value
    distance = abs(estimate.value - limit)
    if distance == 0.0 or not math.isfinite(half) or not num_samples:
        return None
    trials = _wilson_trials(estimate)
    if trials is not None:
        share, edge = estimate.value / 100.0, limit / 100.0
        # Wilson's ends e solve (share - e)^2 = z^2 e (1 - e) / n
        needed = _Z**2 * edge * (1 - edge) / (share - edge) ** 2
        return math.ceil(num_samples * needed / trials) + 1
    power = 1 if estimate.value == 0.0 else 2
    return math.ceil(num_samples * max((half / distance) ** power, 1.0)) + 1


_Z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)


def _wilson_trials(estimate: Estimate) -> float | None:
    """The number of trials for which this is Wilson's interval in percent; None where it is another."""
    share, low, high = (end / 100.0 for end in (estimate.value, estimate.low, estimate.high))
    found = [
        _Z**2 * end * (1 - end) / (share - end) ** 2 for end in (low, high)
        if 0 < end < 1 and end != share
    ]  # fmt: skip
    if not found or not 0 <= low <= share <= high <= 1 or max(found) > min(found) * (1 + 1e-6):
        return None
    return found[0] if len(found) == 2 or share in (low, high) else None
