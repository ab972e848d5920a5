"""A champion that falls below its recorded interval, and one that does not; what "harder" means."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from robustdistill.actions import drift
from robustdistill.actions.judge_case import MOST_STEPS, harder
from robustdistill.gate.scorecard import Evidence

N = 100
THREAT = {"norm": "linf", "eps": 0.1, "low": 0.0, "high": 1.0}


def evidence(robust: range, ids: int = 0) -> Evidence:
    """N examples, all right without an attack, those in `robust` under it, too."""
    labels, flags = np.zeros(N, dtype=np.int64), np.isin(np.arange(N), robust)
    return Evidence({"threat": THREAT}, np.arange(N) + ids, labels, labels, {"pgd": flags})


def test_an_example_counts_only_if_it_withstood_both() -> None:
    fall = drift.compare({"accuracy": 0.6, "lower": 0.5}, evidence(range(60)), evidence(range(20, 80)))
    assert fall.robust == pytest.approx(0.4) and fall.beyond and "drifted" in fall.sentence


def test_within_the_interval_is_no_drift() -> None:
    fall = drift.compare({"accuracy": 0.6, "lower": 0.5}, evidence(range(60)), evidence(range(50)))
    assert fall.robust == pytest.approx(0.5) and not fall.beyond and "within" in fall.sentence


def test_on_other_examples_the_lower_share_counts() -> None:
    fall = drift.compare({"accuracy": 0.6, "lower": 0.5}, evidence(range(60)), evidence(range(20, 75), ids=5))
    assert fall.robust == pytest.approx(0.55)


@pytest.mark.parametrize(
    ("card", "compared"),
    [
        ({"threat": THREAT, "robust": {"accuracy": 0.6, "lower": 0.5}}, True),
        ({"threat": THREAT | {"eps": 0.2}, "robust": {"accuracy": 0.6, "lower": 0.5}}, False),
        ({"threat": THREAT, "robust": {"accuracy": 0.6}}, False),
        (None, False),
    ],
)
def test_only_a_record_of_the_same_threat_model_is_compared(
    card: dict[str, Any] | None, compared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if card is not None:
        (tmp_path / "scorecard.json").write_text(json.dumps(card))
    seeds: list[int | None] = []

    def judged(*_: Any, up_to_date: bool, harder: int | None) -> Evidence:
        seeds.append(harder)
        return replace(evidence(range(30)))

    monkeypatch.setattr(drift, "rescored", judged)
    monkeypatch.setattr(drift, "today", lambda: 20260131)
    current: Any = SimpleNamespace(workspace=None, run="r", figures={})
    fall = drift.measure(current, tmp_path, evidence(range(60)))
    if compared:
        assert fall is not None and fall.beyond and current.figures == {drift.METRIC: pytest.approx(0.3)}
        assert seeds == [20260131]
    else:
        assert fall is None and seeds == [] and current.figures == {}


def test_harder_is_more_steps_within_a_bound() -> None:
    own = [{"name": "fgsm"}, {"name": "pgd", "steps": 20}, {"name": "pgd"}, {"name": "pgd", "steps": 150}]
    own.append({"name": "pgd", "steps": 500})
    assert [spec.get("steps") for spec in harder(own)] == [None, 40, 20, MOST_STEPS, 500]
    assert [spec["name"] for spec in harder(own)] == [spec["name"] for spec in own]
