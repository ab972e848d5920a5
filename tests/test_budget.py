"""The time budget of a run: one moment for all its processes, and a sentence when it is spent."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from robustdistill import budget
from robustdistill.errors import BadInput, OutOfTime


def test_without_a_budget_there_is_always_time() -> None:
    assert budget.left() == float("inf") and budget.patience() is None
    assert not budget.spent() and not budget.overdue()
    budget.require("never said")
    with budget.limited(None):
        assert budget.VARIABLE not in os.environ


def test_a_child_process_knows_the_same_moment() -> None:
    with budget.limited(10):
        code = "from robustdistill import budget; print(budget.left())"
        began = time.monotonic()
        child = float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
        assert 0 <= 600 - child <= time.monotonic() - began + 1
        assert not budget.spent()
    assert budget.VARIABLE not in os.environ


def test_first_it_is_spent_and_then_overdue(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    with budget.limited(1):
        monkeypatch.setattr(time, "monotonic", lambda: now + 61)
        assert budget.spent() and not budget.overdue()
        assert 0 < (budget.patience() or 0) < budget.LATEST_SECONDS
        with pytest.raises(OutOfTime, match="the rest was not begun") as caught:
            budget.require("the rest was not begun")
        assert caught.value.exit_code == 75 and "goes on" in caught.value.fix
        monkeypatch.setattr(time, "monotonic", lambda: now + 61 + budget.LATEST_SECONDS)
        assert budget.overdue() and budget.patience() == 0


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), float("inf")])
def test_what_is_no_number_of_minutes_is_refused(minutes: float) -> None:
    with pytest.raises(BadInput) as caught, budget.limited(minutes):
        pass
    assert caught.value.where == "--max-minutes"
