"""The project's own suite in the judge, from params to outcomes, on models whose robustness is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from judge_toys import Case, judged

from robustdistill.errors import BadInput
from robustdistill.gate.scorecard import Evidence

Make = Callable[..., Case]
PARTS: list[dict[str, Any]] = [
    {"name": "apgd", "steps": 25},
    {"name": "apgd", "steps": 25, "goal": "targeted-margin"},
    {"name": "fab", "steps": 15},
    {"name": "square", "queries": 60},
]


@pytest.mark.parametrize(("classes", "norm", "box"), [(2, "linf", (0.0, 1.0)), (10, "l2", (-3.0, 5.0))])
@pytest.mark.parametrize("attempts", [[{"name": "own", "steps": 25, "queries": 40}], PARTS], ids=["own", "parts"])
def test_without_autoattack_the_robust_accuracy_is_the_analytic_one(
    make: Make, classes: int, norm: str, box: tuple[float, float], attempts: list[dict[str, Any]]
) -> None:
    case = make(classes, norm, box, attacks=attempts, autoattack="none")
    card = judged(case)
    np.testing.assert_array_equal(Evidence.load(case.root / "score").robust, case.analytic)
    names = [attack["name"] for attack in card["attacks"]]
    assert len(set(names)) == len(attempts) and all(
        name.startswith(spec["name"]) for name, spec in zip(names, attempts, strict=True)
    )
    assert [item for item in card["health"] if not item["ok"] and item["level"] == "error"] == []


def test_a_goal_that_these_classes_do_not_allow_is_a_sentence(make: Make) -> None:
    case = make(3, attacks=[{"name": "apgd", "goal": "targeted-dlr"}], autoattack="none")
    with pytest.raises(BadInput, match=r"(?s)at least 4 classes, the model has 3.*goal: targeted-margin"):
        judged(case)
