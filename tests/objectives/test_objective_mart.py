"""MART: its gradient in float64 for several numbers of classes, and logits so large that probabilities round."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustdistill import objectives
from robustdistill.attacks import Batch
from robustdistill.objectives import Objective, Step
from robustdistill.objectives.mart import log_not_runner_up
from robustdistill.rng import Draws, seeded
from robustdistill.threat import ThreatModel

Make = Callable[..., tuple[Objective, Step]]


def equation(clean: Tensor, adv: Tensor, y: Tensor, detach: str = "") -> Tensor:
    """The published loss, class by class; `detach`: of S(x) in the KL ("kl") or in its weight ("doubt")."""
    p, q = clean.softmax(1), adv.softmax(1)
    losses = []
    for n, label in enumerate(y.tolist()):
        others = [q[n, k] for k in range(q.shape[1]) if k != label]
        own = p[n].detach() if detach == "kl" else p[n]
        doubt = 1 - (p[n, label].detach() if detach == "doubt" else p[n, label])
        divergence = (own * (own.log() - q[n].log())).sum()
        losses.append(-q[n, label].log() - (1 - torch.stack(others).max()).log() + 5 * divergence * doubt)
    return torch.stack(losses)


def of(classes: int, make: Make) -> tuple[Objective, Step, nn.Module]:
    """Objective, step with a known x' and a float64 copy of its student."""
    objective, step = make({"name": "mart"})
    with seeded("mart", classes):
        student = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.BatchNorm1d(8), nn.SiLU(), nn.Linear(8, classes))
    with torch.no_grad():
        student[4].weight *= 8
    x_adv = (step.batch.x + 0.1 * torch.sign(Draws(1).normal(step.batch.x, step.batch.index, "x"))).clamp(0, 1)
    batch = step.batch._replace(y=step.batch.index % classes)
    return objective, replace(step, student=student, batch=batch, x_adv=x_adv), copy.deepcopy(student).double()


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_loss_and_gradient_are_those_of_the_equation(classes: int, make: Make) -> None:
    objective, step, exact = of(classes, make)
    parts = objective(step)
    expected = equation(exact(step.batch.x.double()), exact(step.x_adv.double()), step.batch.y)
    assert torch.allclose(parts.loss.double(), expected, rtol=1e-4, atol=1e-5)
    ours = torch.autograd.grad(parts.loss.mean(), list(step.student.parameters()))
    theirs = torch.autograd.grad(expected.mean(), list(exact.parameters()))
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one.double(), other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("detach", ["kl", "doubt"])
def test_nothing_is_detached(detach: str, make: Make) -> None:
    """The same value of the loss, another gradient."""
    objective, step, exact = of(3, make)
    (ours,) = torch.autograd.grad(objective(step).loss.mean(), step.student[1].weight)
    cut = equation(exact(step.batch.x.double()), exact(step.x_adv.double()), step.batch.y, detach)
    (theirs,) = torch.autograd.grad(cut.mean(), exact[1].weight)
    assert (ours.double() - theirs).norm() > 0.02 * theirs.norm()


def test_the_runner_up_by_hand() -> None:
    """p = (1/2, 1/4, 1/8, 1/8): the strongest of the others, whether the label leads or not, and one of two equals."""
    logits = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()
    found = [math.exp(log_not_runner_up(logits, torch.tensor([y])).item()) for y in range(4)]
    assert found == pytest.approx([0.75, 0.5, 0.5, 0.5])
    even = torch.tensor([[0.2, 0.4, 0.4]]).log()
    assert log_not_runner_up(even, torch.tensor([0])).exp().item() == pytest.approx(0.6)


@pytest.mark.parametrize("size", [20.0, 200.0, 1e4])
def test_sure_and_wrong_is_finite(size: float) -> None:
    """In float32, 1 − p is 0 from logits of 17 on. The loss goes on growing by 2 per unit: its gradient is not lost."""
    logits = torch.tensor([[0.0, size, -1.0]], requires_grad=True)
    y = torch.tensor([0])
    value = log_not_runner_up(logits, y)
    assert value.item() == pytest.approx(math.log1p(math.exp(-1.0)) - size, rel=1e-5)
    student = nn.Sequential(nn.Flatten(), nn.Linear(3, 3, bias=False))
    with torch.no_grad():
        student[1].weight.copy_(torch.eye(3))
    batch = Batch(logits.detach(), y, torch.tensor([0]))
    threat = ThreatModel("linf", 0.1, low=-2e4, high=2e4)
    parts = objectives.build({"name": "mart"})(Step(student, None, None, batch, threat, Draws(0), x_adv=batch.x))
    (grad,) = torch.autograd.grad(parts.loss.sum(), student[1].weight)
    assert torch.isfinite(parts.loss).all() and torch.isfinite(grad).all()
    assert parts.loss.item() == pytest.approx(2 * size - math.log1p(math.exp(-1.0)), rel=1e-4)
    assert grad[1, 1].item() == pytest.approx(2 * size, rel=1e-3)


def test_a_sure_and_right_student_loses_nothing() -> None:
    logits = torch.tensor([[40.0, 0.0, 0.0]])
    y = torch.tensor([0])
    bce = F.cross_entropy(logits, y) - log_not_runner_up(logits, y)
    assert 0 <= bce.item() < 1e-6
