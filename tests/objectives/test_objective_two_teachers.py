"""MTARD and B-MTARD: the equation over several steps in float64, by hand, and the state carried from step to step."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_objective_formulas import climb, div, soft
from torch import Tensor, nn

from robustdistill import objectives
from robustdistill.attacks import Batch
from robustdistill.errors import BadInput
from robustdistill.objectives import Objective, Step, Teacher
from robustdistill.rng import Draws
from robustdistill.threat import ThreatModel

Make = Callable[..., tuple[Objective, Step]]


def update(step: Step, loss: Tensor) -> None:
    weights = list(step.student.parameters())
    grads = torch.autograd.grad(loss.mean(), weights)
    with torch.no_grad():
        for weight, grad in zip(weights, grads, strict=True):
            weight -= 0.5 * grad


def seen(step: Step, student: nn.Module, x_adv: Tensor) -> list[np.ndarray]:
    """s, a, t_n, t_a: the logits of the student for x and x', of T_n for x and of T_a for x'."""
    x = step.batch.x
    with torch.no_grad():
        logits = (student(x), student(x_adv), step.clean_teacher.model(x), step.teacher.model(x_adv))
    return [z.double().numpy() for z in logits]


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "mtard", "weight": 0.7, "balance_rate": 0.4, "teacher_temperature": 0.8},
        {"name": "b_mtard", "weight": 0.7, "balance_rate": 0.4, "temperature_rate": 0.3, "highest": 1.5},
    ],
)
def test_four_steps_are_the_equation(spec: dict[str, Any], make: Make) -> None:
    objective, step = make(spec)
    shared, rate = spec.get("teacher_temperature", 1.0), spec.get("temperature_rate", 0.0)
    w_n, t_n, t_a, first = 0.5, 1.0, 1.0, None
    path = []
    for epoch in range(4):
        step = replace(step, draws=step.draws.at(epoch), progress=epoch / 10)
        student = copy.deepcopy(step.student)
        parts = objective(step)
        s, a, n, t = seen(step, student, parts.x_adv)
        p_n, p_a = soft(n / shared, t_n), soft(t / shared, t_a)
        clean, adv = div(p_n, soft(s)), div(p_a, soft(a))
        first = first or (clean.mean(), adv.mean())
        l_n, l_a = clean.mean() / first[0], adv.mean() / first[1]
        w_n -= 0.4 * (w_n - l_n / (l_n + l_a))
        np.testing.assert_allclose(parts.loss.detach(), 0.7 * ((1 - w_n) * adv + w_n * clean), rtol=2e-4, atol=1e-6)
        h_n, h_a = (-(p * np.log(p)).sum(1).mean() for p in (p_n, p_a))
        t_a = min(max(t_a - rate * np.sign(h_a / h_n - 1), 1.0), 1.5)
        t_n = min(max(t_n - rate * np.sign(h_n / h_a - 1), 1.0), 1.5)
        update(step, parts.loss)
        objective.after_step(step.student)
        path.append((w_n, t_n, t_a))
        assert objective.clean_weight.item() == pytest.approx(w_n, rel=1e-4)
        if rate:
            assert objective.temperatures.tolist() == pytest.approx([t_n, t_a], rel=1e-5)
    assert len({round(weight, 4) for weight, _, _ in path}) == 4  # it moved, so the test could see a wrong step
    assert not rate or path[-1][1:] == pytest.approx((1.0, 1.5))  # the confident teacher was softened, up to the end


def test_by_hand(two_logits: type[nn.Module]) -> None:
    """T_a = (1/4, 3/4), T_n = (2/5, 3/5), S(x) = (1/2, 1/2) and S(x') = (1 − σ, σ), the worst case for y = 0."""
    batch = Batch(torch.full((3, 2), 0.5), torch.zeros(3, dtype=torch.int64), torch.arange(3))
    robust = Teacher(two_logits(0.0, (0.0, math.log(3))))  # type: ignore[call-arg]
    clean = Teacher(two_logits(0.0, (0.0, math.log(1.5))))  # type: ignore[call-arg]
    student = two_logits(1.0, (0.0, 0.0))  # type: ignore[call-arg]
    step = Step(student, None, robust, batch, ThreatModel("linf", 0.1), Draws(0), clean_teacher=clean)
    objective = objectives.build({"name": "mtard", "balance_rate": 0.2})
    sigma = 1 / (1 + math.exp(-0.2))
    kl_adv = 0.25 * math.log(0.25 / (1 - sigma)) + 0.75 * math.log(0.75 / sigma)
    kl_clean = 0.4 * math.log(0.8) + 0.6 * math.log(1.2)
    assert objective(step).loss.tolist() == pytest.approx([(kl_adv + kl_clean) / 2] * 3, rel=1e-4)
    objective.after_step(student)
    with torch.no_grad():
        student.shift.copy_(torch.tensor([0.0, math.log(1.5)]))  # S(x) = T_n(x): the clean loss is gone, l_n = 0
    sigma = 1.5 * math.exp(0.2) / (1 + 1.5 * math.exp(0.2))
    kl_adv = 0.25 * math.log(0.25 / (1 - sigma)) + 0.75 * math.log(0.75 / sigma)
    assert objective(step).loss.tolist() == pytest.approx([0.6 * kl_adv] * 3, rel=1e-4)  # w_n = 0.5 − 0.2 · 0.5
    objective.after_step(student)
    assert objective.clean_weight.item() == pytest.approx(0.4, abs=1e-4)


@pytest.mark.parametrize("name", ["mtard", "b_mtard"])
def test_the_attack_is_on_the_student_with_the_label(name: str, make: Make) -> None:
    objective, step = make({"name": name})
    x, y, index = step.batch.x, step.batch.y, step.batch.index
    begin = (x + 0.001 * step.draws.normal(x, index, "pgd")).clamp(0, 1)
    frozen = copy.deepcopy(step.student).eval()
    expected = climb(frozen, x, begin, lambda z, at: F.cross_entropy(z, y, reduction="sum"))
    assert torch.isclose(objective(step).x_adv, expected, atol=1e-5).float().mean() > 0.99


def test_rates_decay_with_progress() -> None:
    objective = objectives.build({"name": "mtard"})
    rates = [objective.rate(0.025, progress) for progress in (0.0, 0.71, 215 / 300, 0.8, 0.9, 0.96)]
    assert rates == pytest.approx([0.025, 0.025, 0.0025, 0.0025, 0.00025, 0.000025])


@pytest.mark.parametrize("name", ["mtard", "b_mtard"])
def test_the_state_goes_on_in_a_new_objective(name: str, make: Make) -> None:
    objective, step = make({"name": name, "balance_rate": 0.4})
    for _ in range(2):
        update(step, objective(step).loss)
        objective.after_step(step.student)
    later = objectives.build({"name": name, "balance_rate": 0.4})
    assert not torch.equal(later(step).loss, objective(step).loss)
    later.load_state_dict(objective.state_dict())
    kept = copy.deepcopy(step.student)  # a forward pass moves statistics, not what training mode answers
    assert torch.equal(later(replace(step, student=kept)).loss, objective(step).loss)


@pytest.mark.parametrize("name", ["mtard", "b_mtard"])
def test_a_perfect_student_breaks_nothing(name: str, make: Make) -> None:
    """Losses of 0, in the first step or later: no division by them."""
    objective, step = make({"name": name})
    answer = Teacher(copy.deepcopy(step.student))
    step = replace(step, student=answer.model, teacher=answer, clean_teacher=answer)
    for _ in range(2):
        assert torch.isfinite(objective(step).loss).all()
        objective.after_step(step.student)
    assert torch.isfinite(objective.clean_weight) and 0 <= objective.clean_weight <= 1


@pytest.mark.parametrize("name", ["mtard", "b_mtard"])
def test_without_the_second_teacher_it_is_a_sentence(name: str, make: Make) -> None:
    objective, step = make({"name": name}, clean_teacher=None)
    with pytest.raises(BadInput, match=f"'{name}' needs a clean teacher"):
        objective(step)
