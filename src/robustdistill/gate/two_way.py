"""Two methods compared over seeds and images: each seed trains one model of either, all are judged on the same images.

d[s, i] in {−1, 0, 1}: right only for ours less right only for theirs, with seed s on image i. Seeds and images are both
samples: of trainings that might have been run, of images that might have been drawn. Two intervals of the mean of d,
because the bootstrap sees only (S − 1)/S of the seeds' variance and is too narrow with a handful of them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t

from robustdistill.gate.statistics import Interval, quantile, sample_needed

MOST_SEEDS = 8  # 6435 ways to draw them; one seed more makes four times as many
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class TwoWay:
    """difference: mean of d. bootstrap, student: its intervals (`bootstrap`, `crossed`). p: two-sided, of no
    difference; inferior: one-sided, of "worse by the margin or more"; both from the t distribution of `crossed`."""

    seeds: int
    n: int
    difference: float
    bootstrap: Interval
    student: Interval
    p: float
    inferior: float

    @property
    def interval(self) -> Interval:
        """The wider of the two intervals on each side: what a claim is made from."""
        return Interval(min(self.bootstrap.lower, self.student.lower), max(self.bootstrap.upper, self.student.upper))


def compare(ours: Flags, theirs: Flags, *, margin: float = 0.01, confidence: float = 0.95) -> TwoWay:
    """ours, theirs: robust or not, [seeds, n], the same seeds and images in the same order. margin: in shares.

    Raises ValueError below two seeds: one training says nothing of the next.
    """
    d = _differences(ours, theirs)
    error, freedom = crossed(d)
    mean, t = float(d.mean()), student_t(freedom)
    half = float(t.ppf(0.5 + confidence / 2)) * error
    seeds, n = d.shape
    return TwoWay(
        seeds,
        n,
        mean,
        bootstrap(d, confidence),
        Interval(mean - half, mean + half),
        p=min(1.0, 2 * float(t.sf(_ratio(abs(mean), error)))),
        inferior=float(t.sf(_ratio(mean + margin, error))),
    )


def crossed(d: NDArray[Any]) -> tuple[float, float]:
    """Standard error of the mean of d [seeds, n] and its degrees of freedom, seeds and images random and crossed.

    Var = (MS_seeds + max(MS_images − MS_rest, 0)) / (S · n), degrees of freedom those of MS_seeds by Satterthwaite's
    approximation (Hillis 2007): S − 1 if seeds are what matters, more where images do. 0 if nothing varies.
    """
    seeds, n = d.shape
    if seeds < 2 or n < 2:
        raise ValueError(f"{seeds} seeds and {n} images: two of each are needed")
    mean, by_seed, by_image = d.mean(), d.mean(axis=1), d.mean(axis=0)
    rest = d - by_seed[:, None] - by_image[None] + mean
    of_seeds = n * float(by_seed.var(ddof=1))
    of_images = seeds * float(by_image.var(ddof=1))
    of_rest = float((rest**2).sum()) / ((seeds - 1) * (n - 1))
    total = of_seeds + max(of_images - of_rest, 0.0)
    freedom = math.inf if of_seeds == 0 else (total / of_seeds) ** 2 * (seeds - 1)
    return math.sqrt(total / d.size), min(freedom, 1e9)


def bootstrap(d: NDArray[Any], confidence: float = 0.95) -> Interval:
    """Percentile interval with infinitely many resamples, exact: seeds are drawn, then images, shared by all seeds.

    Seeds drawn with counts c (a multinomial) give image i the value Σ_s c_s d[s, i]; n draws of images add n of these,
    so the characteristic function of the sum is the mean over c of φ_c^n. Values are integers: one inverse transform.
    Raises ValueError above MOST_SEEDS seeds.
    """
    seeds, n = d.shape
    if seeds > MOST_SEEDS:
        raise ValueError(f"{seeds} seeds have too many resamples to list; {MOST_SEEDS} at most")
    size = 2 * seeds * n + 1
    turns = np.exp(-2j * np.pi * np.arange(size // 2 + 1) / size)
    powers = np.stack([turns**k for k in range(-seeds, seeds + 1)])
    total = np.zeros(len(turns), dtype=complex)
    for counts, share in _drawn(seeds):
        values = np.rint(counts @ d).astype(int) + seeds
        total += share * (np.bincount(values, minlength=2 * seeds + 1) / n @ powers) ** n
    mass = np.roll(np.fft.irfft(total, size), seeds * n).clip(min=0)  # of the sums −S·n … S·n
    reached = np.cumsum(mass / mass.sum())
    tail = (1 - confidence) / 2
    lower, upper = np.searchsorted(reached, [tail, 1 - tail - 1e-12])
    return Interval(float(lower) / (seeds * n) - 1, min(float(upper), size - 1) / (seeds * n) - 1)


def _drawn(seeds: int) -> list[tuple[NDArray[np.int64], float]]:
    """How often each seed is drawn in S draws, with the probability of that."""
    found = []
    for drawn in combinations_with_replacement(range(seeds), seeds):
        counts = np.bincount(drawn, minlength=seeds)
        ways = math.factorial(seeds) // math.prod(math.factorial(k) for k in Counter(drawn).values())
        found.append((counts, ways / seeds**seeds))
    return found


def word(found: TwoWay, p: float, inferior: float, *, margin: float = 0.01, alpha: float = 0.05) -> str:
    """What may be said of a method beside its control. p, inferior: after the correction for all tests read with it."""
    lower, upper = found.interval
    if lower > 0 and p <= alpha:
        return "helps"
    if upper < 0 and p <= alpha:
        return "harms"
    return "non-inferior" if lower > -margin and inferior <= alpha else "cannot be told"


def power_note(discordance: float, n: int, margin: float = 0.01, *, confidence: float = 0.95) -> str:
    """One sentence on what n images can show if so many (a share) are right for one of two models only."""
    needed = sample_needed(discordance, margin, confidence)
    reach = quantile(confidence) * math.sqrt(discordance / n) * 100
    return (
        f"{discordance:.1%} of the images are right for one of two models only: a difference of {margin * 100:g} point"
        f"{'s' * (margin != 0.01)} needs about {needed} images with one seed each (power 80 %), and {n} are there: "
        f"their interval reaches {reach:.1f} points to either side before the seeds add theirs"
    )


def discordance(pairs: Sequence[tuple[Flags, Flags]]) -> float:
    """Mean share of the images on which the two of a pair differ."""
    return float(np.mean([(ours != theirs).mean() for ours, theirs in pairs]))


def _ratio(value: float, error: float) -> float:
    if error > 0:
        return value / error
    return math.copysign(math.inf, value) if value else 0.0


def _differences(ours: Flags, theirs: Flags) -> NDArray[np.float64]:
    if ours.shape != theirs.shape or ours.ndim != 2:
        raise ValueError(f"verdicts of shapes {ours.shape} and {theirs.shape} are not of the same seeds and images")
    return np.subtract(ours, theirs, dtype=np.float64)
