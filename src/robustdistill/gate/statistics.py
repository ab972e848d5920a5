"""Intervals and tests for proportions, alone and in pairs. Closed forms or exact enumeration; nothing is sampled.

Pairs: two models judged on the same n examples. b = right only for ours, c = right only for theirs; examples on which
both are right or both wrong carry no information about the difference (b − c)/n beyond their number.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri
from scipy.stats import binom


class Interval(NamedTuple):
    """A two-sided confidence interval."""

    lower: float
    upper: float


def quantile(confidence: float) -> float:
    """z with P(|Z| ≤ z) = confidence for a standard normal Z."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence} is not between 0 and 1")
    return float(ndtri(0.5 + confidence / 2))


def wilson(successes: float, n: int, confidence: float = 0.95) -> Interval:
    """Score interval of one proportion (Wilson 1927, eq. for inverted z-test). n = 0 says nothing: (0, 1)."""
    _check(successes, n)
    if n == 0:
        return Interval(0.0, 1.0)
    z2, share = quantile(confidence) ** 2, successes / n
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    # At the ends the bound is exactly 0 or 1; rounding must not leave it at 1e-17.
    lower = 0.0 if successes == 0 else max(0.0, centre - half)
    return Interval(lower, 1.0 if successes == n else min(1.0, centre + half))


def tango(b: float, c: float, n: int, confidence: float = 0.95) -> Interval:
    """Score interval of the paired difference (b − c)/n: all Δ that the score test does not reject (Tango 1998).

    Needs no discordant pair: with b = c = 0 it is ±z²/(n + z²), not a point. n = 0 says nothing: (−1, 1).
    """
    _check(b + c, n)
    _check(min(b, c), n)
    if n == 0:
        return Interval(-1.0, 1.0)
    z, difference = quantile(confidence), (b - c) / n
    lower = -1.0 if c == n else _cross(b, c, n, z, difference)
    upper = 1.0 if b == n else -_cross(c, b, n, z, -difference)
    return Interval(lower, upper)


def _cross(b: float, c: float, n: int, z: float, difference: float) -> float:
    """The Δ below the observed difference at which the score statistic reaches z."""
    return float(brentq(lambda delta: _score(b, c, n, delta) - z, -1.0, difference, xtol=1e-14))


def _score(b: float, c: float, n: int, delta: float) -> float:
    """Tango's statistic for the hypothesis that the difference is Δ; the nuisance q = P(only theirs) is its constrained
    maximum likelihood estimate, the larger root of 2n·q² + (−b − c + (2n − b + c)Δ)·q − cΔ(1 − Δ) = 0."""
    linear = -b - c + (2 * n - b + c) * delta
    root = math.sqrt(max(0.0, linear * linear + 8 * n * c * delta * (1 - delta)))
    q = (root - linear) / (4 * n)
    gap, variance = b - c - n * delta, n * (2 * q + delta * (1 - delta))
    if variance <= 0:
        return math.copysign(math.inf, gap) if gap else 0.0
    return float(np.clip(gap / math.sqrt(variance), -1e9, 1e9))


def bootstrap(b: int, c: int, n: int, confidence: float = 0.95) -> Interval:
    """Percentile interval of the paired bootstrap with infinitely many resamples, by exact enumeration.

    A resample's difference is a sum of n independent steps +1, −1, 0 with probabilities b/n, c/n and the rest; its
    distribution is the n-th power of the step's characteristic function. O(n log n), no randomness.
    """
    _check(b + c, n)
    if n == 0:
        return Interval(-1.0, 1.0)
    size = 2 * n + 1
    turn = 2j * np.pi * np.arange(size) / size
    step = (n - b - c) / n + b / n * np.exp(-turn) + c / n * np.exp(turn)
    mass = np.fft.fftshift(np.fft.ifft(step**n).real.clip(min=0))  # differences −n … n
    total = np.cumsum(mass / mass.sum())
    tail = (1 - confidence) / 2
    lower, upper = np.searchsorted(total, [tail, 1 - tail - 1e-12])
    return Interval(float((lower - n) / n), float((min(upper, 2 * n) - n) / n))


def mcnemar(b: int, c: int) -> float:
    """Two-sided exact p-value that ours and theirs are equally good, given b + c discordant pairs (McNemar 1947)."""
    return min(1.0, 2 * float(binom.cdf(min(b, c), b + c, 0.5)))


def smallest_margin(discordance: float, n: int, confidence: float = 0.95) -> float:
    """The smallest margin that a model exactly as good as its reference (b = c, b + c = discordance · n) would hold.

    Below it, "no worse by more than the margin" cannot be shown on n examples unless the model is better.
    """
    return -tango(discordance * n / 2, discordance * n / 2, n, confidence).lower


def sample_needed(discordance: float, margin: float, confidence: float = 0.95, power: float = 0.8) -> int:
    """Examples with which an equally good model passes a non-inferiority margin with probability `power`.

    Normal approximation n = d·(z + z_power)²/margin², raised until `smallest_margin` lies below the margin, which
    matters where discordant pairs are few. margin in (0, 1].
    """
    if not 0 < margin <= 1:
        raise ValueError(f"margin {margin} is not in (0, 1]")
    z = quantile(confidence)
    noisy = discordance * ((z + float(ndtri(power))) / margin) ** 2
    n = math.ceil(max(noisy, z * z * (1 - margin) / margin)) + 1
    while smallest_margin(discordance, n, confidence) >= margin:
        n += n // 50 + 1
    return n


def power(discordance: float, margin: float, n: int, confidence: float = 0.95) -> float:
    """Probability that an equally good model passes a non-inferiority margin on n examples (normal approximation)."""
    if discordance <= 0:
        return float(smallest_margin(0.0, n, confidence) < margin)
    return float(ndtr(margin * math.sqrt(n / discordance) - quantile(confidence)))


def _check(successes: float, n: int) -> None:
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} of {n} is not a count of a sample")
