"""Health must fail where robustness is only apparent, and hold where it is real."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from judge_toys import Case, judged

from robustdistill.gate.scorecard import Evidence
from robustdistill.judge.curve import Curve, Point
from robustdistill.judge.health.check import limit
from robustdistill.judge.health.larger import monotone, overwhelmed

Make = Callable[..., Case]


def failed(case: Case, level: str = "error") -> set[str]:
    return {item["name"] for item in judged(case)["health"] if not item["ok"] and item["level"] == level}


@pytest.mark.parametrize(
    ("mask", "found"),
    [
        ("steps", {"zero_gradients", "gradient_free"}),  # rounding has no gradient at all
    ],
)
def test_hidden_gradients_are_noticed(make: Make, mask: str, found: set[str]) -> None:
    case = make(4, mask=mask, attacks=[{"name": "fgsm"}, {"name": "pgd", "steps": 5}])
    assert found <= failed(case)


def test_logits_that_are_no_numbers_are_noticed(make: Make) -> None:
    case = make(4, mask="nan", autoattack="none", attacks=[{"name": "fgsm"}])
    card = judged(case)
    assert card["robust"]["accuracy"] == card["clean"]["accuracy"] == 0
    assert not Evidence.load(case.root / "score").clean.any()
    assert {"finite_logits", "parity", "zero_gradients"} <= {i["name"] for i in card["health"] if not i["ok"]}


def test_an_evaluation_without_autoattack_says_so(make: Make) -> None:
    case = make(4, autoattack="none")
    assert failed(case) == set() and failed(case, "warning") == {"last_word", "more_steps"}


def test_an_attack_that_climbs_nowhere_is_noticed(make: Make) -> None:
    lazy = {"name": "pgd", "steps": 2, "step": 1e-6, "start": "none"}
    case = make(10, autoattack="none", attacks=[{"name": "fgsm"}, lazy])
    assert failed(case) == {"iterative_stronger"}


def test_a_weak_protocol_is_shown_by_the_gap_to_autoattack(make: Make) -> None:
    case = make(10, attacks=[{"name": "pgd", "steps": 2, "step": 0.1, "start": "none"}])
    assert failed(case, "warning") == {"gap"}


@pytest.mark.parametrize(
    ("values", "ok"), [([0.9, 0.5, 0.1], True), ([0.5, 0.5], True), ([0.4, 0.9], False), ([], True)]
)
def test_accuracy_must_not_rise_with_eps(values: list[float], ok: bool) -> None:
    points = [Point(number, 0.1 * number, value, 100, value) for number, value in enumerate(values)]
    assert monotone(Curve(points, 0.0, 100)).ok is ok


@pytest.mark.parametrize(("accuracy", "ok"), [(0.0, True), (0.25, True), (0.39, True), (0.41, False)])
def test_nothing_may_stand_where_every_input_can_be_made_the_same(accuracy: float, ok: bool) -> None:
    assert overwhelmed(Curve([], accuracy, 30), classes=4).ok is ok


def test_a_value_that_is_no_number_passes_no_check() -> None:
    assert not limit("name", np.nan, 1.0, "sentence").ok
