"""Seeds and images: the exact bootstrap beside a drawn one, the standard error beside a simulation, Holm by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import false_discovery_control, ttest_1samp

from robustdistill.gate.multiplicity import holm
from robustdistill.gate.statistics import bootstrap as one_way
from robustdistill.gate.statistics import sample_needed
from robustdistill.gate.two_way import TwoWay, bootstrap, compare, crossed, discordance, power_note, word


def _uniform(*shape: int, seed: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(seed)).random(shape)


def _world(count: int, seeds: int, n: int, gain: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Verdicts [count, seeds, n] of two methods: each image has a difficulty, each training its own luck."""
    ease = _uniform(count, 1, n, seed=seed)
    luck = 0.03 * (_uniform(2, count, seeds, 1, seed=seed + 1) - 0.5)
    noise = 0.3 * (_uniform(2, count, seeds, n, seed=seed + 2) - 0.5)
    value = ease + luck + noise
    return value[0] + gain > 0.3, value[1] > 0.3


def test_holm_by_hand() -> None:
    """Holm 1979: 0.01 · 4, 0.02 · 3, 0.03 · 2, 0.5 · 1, made monotone, in the order given."""
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([]) == [] and holm([0.4]) == [0.4] and holm([0.6, 0.7]) == [1.0, 1.0]
    with pytest.raises(ValueError, match="not all in"):
        holm([0.2, 1.2])


def test_holm_rejects_falsely_once_in_twenty_and_more_than_bonferroni() -> None:
    drawn = _uniform(4000, 6, seed=1)
    rejected = np.array([min(holm(row.tolist())) <= 0.05 for row in drawn])
    assert abs(rejected.mean() - 0.05) < 0.012
    mixed = [0.001, 0.009, 0.03]
    adjusted = holm(mixed)
    assert all(h <= 3 * p for h, p in zip(adjusted, mixed, strict=True)) and adjusted[1] < 3 * mixed[1]
    assert all(h >= q for h, q in zip(adjusted, false_discovery_control(mixed), strict=True))


def test_the_exact_bootstrap_is_the_drawn_one() -> None:
    ours, theirs = (part[0] for part in _world(1, 3, 40, 0.1, seed=5))
    d = ours.astype(float) - theirs
    exact = bootstrap(d, 0.9)
    generator = np.random.Generator(np.random.Philox(9))
    seeds, images = generator.integers(0, 3, (20_000, 3)), generator.integers(0, 40, (20_000, 40))
    drawn = np.array([d[s][:, i].mean() for s, i in zip(seeds, images, strict=True)])
    assert exact == pytest.approx(np.quantile(drawn, [0.05, 0.95]), abs=0.01)


def test_with_one_seed_it_is_the_bootstrap_over_images() -> None:
    d = np.array([[1.0] * 6 + [-1.0] * 2 + [0.0] * 42])
    assert bootstrap(d) == pytest.approx(one_way(6, 2, 50), abs=1e-12)


def test_equal_seeds_add_nothing_to_the_images_and_equal_images_nothing_to_the_seeds() -> None:
    row = np.array([1.0] * 6 + [-1.0] * 2 + [0.0] * 42)
    error, freedom = crossed(np.tile(row, (4, 1)))
    assert error == pytest.approx(row.std(ddof=1) / np.sqrt(50)) and freedom > 1e6
    column = np.array([0.0, 1.0, 1.0, 0.0, 1.0])
    error, freedom = crossed(np.tile(column[:, None], (1, 30)))
    assert error == pytest.approx(column.std(ddof=1) / np.sqrt(5)) and freedom == pytest.approx(4)
    tiled = np.tile(column[:, None], (1, 30))
    found = compare(tiled == 1, np.zeros_like(tiled, dtype=bool))
    assert found.p == pytest.approx(ttest_1samp(column, 0).pvalue)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """300 studies of 5 seeds and 200 images: the truth is the mean of all their pairs. The bootstrap alone is known
    to be too narrow; the wider of the two is not."""
    ours, theirs = _world(300, 5, 200, 0.02, seed=20)
    truth = float(ours.mean() - theirs.mean())
    student, wider, boot = [], [], []
    for a, b in zip(ours, theirs, strict=True):
        found = compare(a, b)
        student.append(found.student.lower <= truth <= found.student.upper)
        boot.append(found.bootstrap.lower <= truth <= found.bootstrap.upper)
        wider.append(found.interval.lower <= truth <= found.interval.upper)
    assert np.mean(student) > 0.93 and np.mean(wider) >= np.mean(student) and np.mean(boot) > 0.85


def test_the_words_are_only_those_that_the_interval_shows() -> None:
    def said(ours: np.ndarray, theirs: np.ndarray, p: float | None = None) -> str:
        found = compare(ours, theirs)
        return word(found, found.p if p is None else p, found.inferior)

    none, some = np.zeros((5, 2000), dtype=bool), np.zeros((5, 2000), dtype=bool)
    some[:, :100] = True
    assert said(some, none) == "helps" and said(none, some) == "harms"
    assert said(some, none, p=0.06) == "non-inferior"  # another test took the level
    assert said(none, none) == "non-inferior"
    few = none.copy()
    few[0, :200] = True
    assert said(few, none) == "cannot be told"  # one seed of five


def test_what_cannot_be_compared_is_refused() -> None:
    flags = np.zeros((1, 9), dtype=bool)
    with pytest.raises(ValueError, match="two of each"):
        compare(flags, flags)
    with pytest.raises(ValueError, match="same seeds"):
        compare(flags, flags[:, :8])
    with pytest.raises(ValueError, match="8 at most"):
        bootstrap(np.zeros((9, 4)))


def test_one_point_at_ten_per_cent_needs_7800_images() -> None:
    """n = d · (z_0.975 + z_0.8)² / margin² = 0.1 · 7.849 / 0.0001."""
    assert sample_needed(0.1, 0.01) == pytest.approx(7849, rel=0.01)
    assert "78" in power_note(0.1, 1000) and "2.0 points" in power_note(0.1, 1000)
    ours, theirs = np.array([True, True, False, False]), np.array([True, False, False, False])
    assert discordance([(ours, theirs), (ours, ours)]) == 0.125
    assert isinstance(compare(np.tile(ours, (2, 1)), np.tile(theirs, (2, 1))), TwoWay)
