"""The gate's statistics against published figures, closed forms and brute force."""

from __future__ import annotations

import bisect
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import minimize_scalar

from robustdistill.gate import statistics as s

COUNTS = st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 300)).filter(lambda t: sum(t) > 0)


def test_wilson_matches_scipy() -> None:
    for k, n in ((0, 10), (1, 10), (8, 10), (10, 10), (520, 1000)):
        reference = stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
        assert s.wilson(k, n, 0.95) == pytest.approx((reference.low, reference.high), abs=1e-9)


def test_nothing_observed_says_nothing() -> None:
    assert s.wilson(0, 0) == (0, 1)
    assert s.tango(0, 0, 0) == s.bootstrap(0, 0, 0) == (-1, 1)


def test_tango_published_example() -> None:
    """Airway hyper-responsiveness in 21 children, cells 1, 1, 7, 12 (Fagerland, Lydersen & Laake 2014)."""
    assert s.tango(1, 7, 21) == pytest.approx((-0.517, -0.026), abs=5e-4)


@pytest.mark.parametrize(("b", "c", "n"), [(1, 7, 21), (40, 20, 160), (0, 1, 44), (7, 0, 7), (30, 31, 1000), (2, 0, 9)])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_tango_bounds_are_roots_of_the_quartic(b: int, c: int, n: int, confidence: float) -> None:
    """The squared score equation is a polynomial of degree 4 in Δ (Yang, Sun & Hardin 2013)."""
    g, d, t = s.quantile(confidence) ** 2, b - c, b + c
    coefficients = [
        n**2 * (n / g + 1) ** 2,
        -n * d * (n / g + 1) * (4 * n / g + 1),
        2 * n * d**2 * (3 * n / g + 2) / g - n**2 * (t / g + 1),
        n * d * (2 * t / g + 1) - d**3 * (4 * n / g + 1) / g,
        d**2 * (d**2 / g - t) / g,
    ]
    roots = np.roots(coefficients)
    for bound in s.tango(b, c, n, confidence):
        assert np.abs(roots - bound).min() < 1e-5 or abs(bound) == 1


@pytest.mark.parametrize(("b", "c", "n"), [(1, 7, 21), (5, 2, 30), (0, 3, 50), (12, 12, 200)])
def test_tango_by_inverting_the_score_test_numerically(b: int, c: int, n: int) -> None:
    """The nuisance by numerical likelihood, the interval by a grid of Δ: no formula in common with the code."""
    z = s.quantile(0.95)

    def accepted(delta: float) -> bool:
        low, high = max(0.0, -delta), (1 - delta) / 2
        cells = lambda q: ((b, q + delta), (c, q), (n - b - c, 1 - 2 * q - delta))  # noqa: E731
        loss = lambda q: -sum(k * math.log(max(p, 1e-300)) for k, p in cells(q) if k)  # noqa: E731
        q = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
        return abs(b - c - n * delta) <= z * math.sqrt(n * (2 * q + delta * (1 - delta)))

    inside = [delta for delta in np.linspace(-0.7, 0.7, 2801) if accepted(delta)]
    assert s.tango(b, c, n) == pytest.approx((inside[0], inside[-1]), abs=6e-4)


@pytest.mark.parametrize("n", [1, 44, 1000])
def test_tango_without_discordance_is_closed_form(n: int) -> None:
    z2 = s.quantile(0.95) ** 2
    assert s.tango(0, 0, n) == pytest.approx((-z2 / (n + z2), z2 / (n + z2)), abs=1e-9)


@given(COUNTS, st.sampled_from([0.8, 0.95]))
def test_tango_swaps_with_the_models_and_holds_the_estimate(counts: tuple[int, int, int], level: float) -> None:
    b, c, same = counts
    n = b + c + same
    lower, upper = s.tango(b, c, n, level)
    swapped = s.tango(c, b, n, level)
    assert (-swapped.upper, -swapped.lower) == pytest.approx((lower, upper), abs=1e-9)
    assert -1 <= lower <= (b - c) / n <= upper <= 1
    assert s.tango(b, c, n, 0.99).lower <= lower + 1e-12


@given(COUNTS)
def test_tango_rises_when_ours_gets_one_more_right(counts: tuple[int, int, int]) -> None:
    b, c, same = counts
    n = b + c + same
    before = s.tango(b, c, n).lower
    if same:
        assert s.tango(b + 1, c, n).lower >= before - 1e-9
    if c:
        assert s.tango(b, c - 1, n).lower >= before - 1e-9


@settings(max_examples=40)
@given(st.integers(0, 4), st.integers(0, 4), st.integers(1, 4))
def test_bootstrap_enumerates_every_resample(b: int, c: int, same: int) -> None:
    n = min(b + c + same, 6)
    b, c = min(b, n), min(c, n - min(b, n))
    steps = [1] * b + [-1] * c + [0] * (n - b - c)
    sums = np.sort([sum(draw) for draw in itertools.product(steps, repeat=n)])
    lower, upper = (sums[math.ceil(q * len(sums) - 1e-9) - 1] / n for q in (0.05, 0.95))
    assert s.bootstrap(b, c, n, 0.9) == pytest.approx((lower, upper))


def test_bootstrap_agrees_with_tango_on_a_large_sample() -> None:
    assert s.bootstrap(120, 80, 2000) == pytest.approx(s.tango(120, 80, 2000), abs=2e-3)


def test_mcnemar_matches_the_binomial_test() -> None:
    for b, c in ((0, 0), (1, 7), (20, 12), (9, 9)):
        expected = stats.binomtest(b, b + c).pvalue if b + c else 1.0
        assert s.mcnemar(b, c) == pytest.approx(expected)


@given(st.floats(0, 0.4), st.floats(0.01, 0.2))
def test_the_sample_needed_is_enough(discordance: float, margin: float) -> None:
    n = s.sample_needed(discordance, margin, power=0.8)
    assert s.smallest_margin(discordance, n) < margin
    assert s.power(discordance, margin, n) >= 0.8 - 1e-6
    assert s.smallest_margin(discordance, max(1, n // 4)) > s.smallest_margin(discordance, n)


def test_power_by_exact_enumeration() -> None:
    """Equal models that differ on a tenth of 1000 examples: how often does the interval stay above −2 points?"""
    n, d, margin = 1000, 0.1, 0.02
    passed = 0.0
    for total in range(60, 145):
        holds = lambda b, total=total: s.tango(b, total - b, n).lower > -margin  # noqa: E731
        first = bisect.bisect_left(range(total + 1), True, key=holds)
        passed += stats.binom.pmf(total, n, d) * stats.binom.sf(first - 1, total, 0.5)
    assert s.power(d, margin, n) == pytest.approx(passed, abs=0.03)


@pytest.mark.parametrize("call", [lambda: s.wilson(5, 4), lambda: s.tango(3, 3, 5), lambda: s.tango(-1, 1, 5)])
def test_impossible_counts_are_refused(call: object) -> None:
    with pytest.raises(ValueError, match="not a count"):
        call()  # type: ignore[operator]


def test_impossible_levels_and_margins_are_refused() -> None:
    with pytest.raises(ValueError, match="confidence"):
        s.quantile(1.0)
    with pytest.raises(ValueError, match="margin"):
        s.sample_needed(0.1, 0.0)
