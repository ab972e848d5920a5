"""Losses of the first steps of training, kept in golden.json: behaviour must not change without somebody saying so.

A tiny smooth net and three steps, so that processors agree to 1e-3. If a change is meant: raise the `revision` of the
stages it touches, then run this file with ROBUSTDISTILL_REWRITE_GOLDEN=1.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from robustdistill.objectives import OBJECTIVES, Objective, Step
from robustdistill.threat import ThreatModel

GOLDEN = Path(__file__).with_name("golden.json")

CASES: dict[str, dict[str, Any]] = {name: {"name": name} for name in OBJECTIVES} | {
    "ard T4 ce": {"name": "ard", "temperature": 4.0, "ce_weight": 0.5},
    "logit_l1 clean": {"name": "logit_l1", "adversarial": False},
    "rslad sharp": {"name": "rslad", "teacher_temperature": 0.6, "ce_weight": 0.3, "attack": {"steps": 3}},
    "igdm rslad": {"name": "igdm", "weight": 3.0, "base": {"name": "rslad", "attack": {"steps": 3}}},
    "saad clean": {"name": "saad", "clean_weight": 0.5, "attack": {"steps": 3}},
    "pgd_at l2": {"name": "pgd_at", "attack": {"steps": 3}},
}


def train(objective: Objective, step: Step) -> list[float]:
    trained = [*step.student.parameters(), *objective.parameters()]
    weights, losses = [weight for weight in trained if weight.requires_grad], []
    for epoch in range(3):
        loss = objective(replace(step, draws=step.draws.at(epoch))).loss.mean()
        with torch.no_grad():
            for weight, grad in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                weight -= 0.2 * grad
        objective.after_step(step.student)
        losses.append(round(loss.item(), 6))
    return losses


@pytest.mark.parametrize("case", CASES)
def test_losses_of_the_first_steps(case: str, make: Callable[..., tuple[Objective, Step]]) -> None:
    threat = ThreatModel("l2", 0.5) if case.endswith("l2") else ThreatModel("linf", 0.1)
    losses = train(*make(CASES[case], threat=threat))
    if os.environ.get("ROBUSTDISTILL_REWRITE_GOLDEN"):
        known = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
        GOLDEN.write_text(json.dumps(known | {case: losses}, indent=2, sort_keys=True) + "\n")
    assert losses == pytest.approx(json.loads(GOLDEN.read_text())[case], rel=1e-3)
    assert losses[0] != losses[1]


def test_no_golden_loss_without_its_case() -> None:
    assert sorted(json.loads(GOLDEN.read_text())) == sorted(CASES)
