"""Every way to distil teaches: a student that follows it holds under attack what the untrained one does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustdistill import attacks, objectives
from robustdistill.attacks import Batch, TorchTarget
from robustdistill.objectives import OBJECTIVES, Step, Teacher
from robustdistill.rng import Draws, seeded
from robustdistill.threat import ThreatModel

STEPS, THREAT = 40, ThreatModel("linf", 0.1)


class Rule(nn.Module):
    """The class is the strongest of three pairs of features; an attack moves a pair's mean by eps at most."""

    def forward(self, x: Tensor) -> Tensor:
        return 8 * x.view(-1, 3, 2).mean(dim=2)


def examples(count: int, seed: int) -> Batch:
    """One pair stands out of the others by 0.35 to 0.55, so that the right answer exists all over the ball."""
    index = torch.arange(count) + 1000 * seed
    x = 0.2 + 0.2 * Draws(1).uniform(torch.empty(count, 6), index, "x")
    x.view(-1, 3, 2)[torch.arange(count), index % 3] += 0.45
    return Batch(x, index % 3, index)


def robust_accuracy(student: nn.Module) -> float:
    batch = examples(300, seed=9)
    attack = attacks.build({"name": "pgd", "steps": 10, "step": 0.25})
    target = TorchTarget(student)
    return (target.predict(attack(target, batch, THREAT, Draws(2))) == batch.y).float().mean().item()


@pytest.mark.parametrize("name", [name for name, found in OBJECTIVES.items() if found.needs_teacher])
def test_a_student_learns_to_hold(name: str, toy: Callable[..., Any]) -> None:
    with seeded("learning", "student"):
        student = nn.Sequential(nn.Linear(6, 24), nn.SiLU(), nn.Linear(24, 3))
    before = robust_accuracy(student)
    optimizer = torch.optim.Adam(student.parameters(), lr=0.02)
    objective, teacher = objectives.build({"name": name}), Teacher(Rule())
    objective.begin(student, toy(3), 3)
    step = Step(student, None, teacher, examples(64, 0), THREAT, Draws(3), clean_teacher=teacher)
    for k in range(STEPS):
        loss = objective(
            replace(step, batch=examples(64, k % 8), draws=Draws(3, epoch=k // 8), progress=k / STEPS)
        ).loss.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        objective.after_step(student)
    assert robust_accuracy(student) > max(0.9, before + 0.4)
