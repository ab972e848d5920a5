"""Robust accuracy against eps: on until chance, or until the ball holds every input."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from judge_toys import Case, judged

from robustdistill.judge.curve import DOUBLINGS, Curve, Point
from robustdistill.judge.health.larger import monotone

Make = Callable[..., Case]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_honest_model_is_followed_to_chance(make: Make, norm: str) -> None:
    case = make(4, norm=norm, autoattack="none", attacks=[{"name": "fgsm"}], curve=[0.25])
    points = judged(case)["curve"]
    factors = [point["factor"] for point in points]
    assert factors == [0.25 * 2**k for k in range(len(factors))] and 2 <= len(factors) <= 1 + DOUBLINGS
    assert points[-1]["accuracy"] <= 1 / 4 < points[-2]["accuracy"]


def test_a_curve_that_is_at_chance_is_not_prolonged(make: Make) -> None:
    case = make(4, autoattack="none", attacks=[{"name": "fgsm"}], curve=[0.5, 8.0])
    assert [point["factor"] for point in judged(case)["curve"]] == [0.5, 8.0]


def test_a_masked_model_is_followed_until_the_ball_holds_the_gray_image(make: Make) -> None:
    """Rounding hides the gradient: margin PGD moves nothing but its start."""
    case = make(4, mask="steps", autoattack="none", attacks=[{"name": "fgsm"}], curve=[1.0])
    card = judged(case)
    points, eps = card["curve"], card["threat"]["eps"]
    assert points[-1]["eps"] == 0.5 and points[-1]["factor"] == pytest.approx(0.5 / eps)
    assert len(points) <= 2 + DOUBLINGS and all(point["eps"] < 0.5 for point in points[:-1])
    values = [point["accuracy"] for point in points]
    assert values == sorted(values, reverse=True) and values[-2] > 1 / 4


def test_the_huge_eps_has_a_check_of_its_own() -> None:
    points = [Point(1.0, 0.1, 0.3, 50, 0.3), Point(5.0, 0.5, 0.3, 50, 0.4)]
    assert monotone(Curve(points, 0.4, 50, 0.5)).ok
    assert not monotone(Curve(points, 0.4, 50, 0.7)).ok
