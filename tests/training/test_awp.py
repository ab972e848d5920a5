"""AWP against its definition: the gradient at the worst weights nearby, and nothing else is moved."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from training_bench import Bench, make_job

from robustdistill import objectives
from robustdistill.attacks import Batch, TorchTarget
from robustdistill.objectives.types import Objective, Parts, Step
from robustdistill.rng import Draws, seeded
from robustdistill.threat import ThreatModel
from robustdistill.training import Job, fit, loop
from robustdistill.training.awp import worst_weights

GAMMA = 0.1


def tiny() -> nn.Sequential:
    with seeded("awp"):
        return nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.BatchNorm1d(8), nn.SiLU(), nn.Linear(8, 3)).train()


def step_of(student: nn.Module) -> Step:
    index = torch.arange(24)
    x = Draws(1).uniform(torch.empty(24, 6), index, "x")
    return Step(student, None, None, Batch(x, index % 3, index), ThreatModel("linf", 0.1), Draws(2))


def ce(z: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(z, y)


def own_kl(s: Tensor, a: Tensor) -> Tensor:
    p = s.softmax(1)
    return (p * (p.log() - a.log_softmax(1))).sum(1)


def mart(s: Tensor, a: Tensor, y: Tensor) -> Tensor:
    q, true = a.softmax(1), F.one_hot(y, 3)
    margin = -(1 - (q * (1 - true)).max(1).values).log()
    return (
        F.cross_entropy(a, y, reduction="none") + margin + 5 * own_kl(s, a) * (1 - (s.softmax(1) * true).sum(1))
    ).mean()


EQUATIONS: dict[str, Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]] = {
    "ce": lambda model, x, a, y: ce(model(x), y),
    "pgd_at": lambda model, x, a, y: ce(model(a), y),
    "n_fgsm": lambda model, x, a, y: ce(model(a), y),
    "trades": lambda model, x, a, y: (lambda s, t: ce(s, y) + 6 * own_kl(s, t).mean())(model(x), model(a)),
    "mart": lambda model, x, a, y: mart(model(x), model(a), y),
}


@pytest.mark.parametrize("name", EQUATIONS)
def test_the_gradient_is_that_at_the_worst_weights(name: str) -> None:
    student, equation = tiny(), EQUATIONS[name]
    objective, step = objectives.build({"name": name}), step_of(student)
    exact = copy.deepcopy(student).double()
    with worst_weights(GAMMA, objective, step, objective) as (parts, loss):
        ours = torch.autograd.grad(loss, list(student.parameters()))
    x, y = step.batch.x.double(), step.batch.y
    x_adv = x if parts.x_adv is None else parts.x_adv.double()
    grads = torch.autograd.grad(equation(exact, x, x_adv, y), list(exact.parameters()))
    with torch.no_grad():
        for weight, grad in zip(exact.parameters(), grads, strict=True):
            if weight.dim() == 2:
                weight += GAMMA * (weight.square().sum() / grad.square().sum()).sqrt() * grad
    worst = equation(exact, x, x_adv, y)
    assert loss.item() == pytest.approx(worst.item(), rel=1e-4)
    assert worst > parts.loss.double().mean() + 0.01  # uphill
    for one, other in zip(ours, torch.autograd.grad(worst, list(exact.parameters())), strict=True):
        assert torch.allclose(one.double(), other, rtol=1e-2, atol=1e-5)


def test_matrices_move_by_gamma_biases_and_norms_stay_and_all_is_bit_equal_after() -> None:
    student = tiny()
    objective = objectives.build({"name": "trades"})
    before = {name: weight.detach().clone() for name, weight in student.named_parameters()}
    with worst_weights(GAMMA, objective, step_of(student), objective):
        for name, weight in student.named_parameters():
            moved = (weight.detach() - before[name]).norm()
            assert moved.item() == pytest.approx(
                GAMMA * before[name].norm().item() if weight.dim() > 1 else 0, rel=1e-4
            )
    assert all(torch.equal(weight, before[name]) for name, weight in student.named_parameters())
    with (
        pytest.raises(ZeroDivisionError),
        worst_weights(GAMMA, objective, step_of(student), objective),
    ):
        raise ZeroDivisionError
    assert all(torch.equal(weight, before[name]) for name, weight in student.named_parameters())


def test_a_weight_without_gradient_stays_a_frozen_one_too_and_zero_is_no_direction() -> None:
    student = tiny()
    student.register_parameter("unused", nn.Parameter(torch.ones(2, 2)))
    student[1].weight.requires_grad_(False)
    with torch.no_grad():
        student[4].weight.zero_()
    before = copy.deepcopy(student.state_dict())
    objective = objectives.build({"name": "pgd_at"})
    with worst_weights(GAMMA, objective, step_of(student), objective) as (_, loss):
        for name in ("unused", "1.weight", "4.weight"):
            assert torch.equal(student.state_dict()[name], before[name])
        assert torch.isfinite(loss)


def test_x_adv_is_found_once_and_statistics_move_once_by_the_second_pass() -> None:
    student = tiny()
    objective = objectives.build({"name": "trades", "attack": {"steps": 3}})
    calls: list[int] = []

    class Counting(TorchTarget):
        def gradient(self, batch: Any, goal: Any) -> Tensor:
            calls.append(len(batch.x))
            return super().gradient(batch, goal)

    step = dataclasses.replace(step_of(student), target=Counting(student))
    buffers = dict(student.named_buffers())
    twin = copy.deepcopy(student)
    with worst_weights(GAMMA, objective, step, objective) as (parts, _):
        assert parts.x_adv is not None
        twin.load_state_dict(dict(student.named_parameters()) | dict(twin.named_buffers()))
    assert calls == [24] * 3
    twin(step.batch.x), twin(parts.x_adv)
    for name, buffer in student.named_buffers():
        assert torch.equal(buffer, dict(twin.named_buffers())[name])
        assert buffer is buffers[name]  # the attack's twin shares this memory
    assert student[2].num_batches_tracked == 2


class Counts(Objective):
    """State that each evaluation moves, once in place and once by another tensor."""

    name = "counts"

    def __init__(self) -> None:
        super().__init__(None)
        self.register_buffer("here", torch.zeros(()))
        self.register_buffer("there", torch.zeros(0))

    def forward(self, step: Step) -> Parts:
        self.here += 1
        self.there = torch.cat([self.there, torch.ones(1)])
        logits = step.student(step.batch.x)
        return Parts(F.cross_entropy(logits, step.batch.y, reduction="none"), {}, logits.detach(), None)


@pytest.mark.parametrize("gamma", [0.0, GAMMA])
def test_the_state_of_an_objective_moves_once(gamma: float) -> None:
    objective = Counts()
    for _ in range(3):
        with worst_weights(gamma, objective, step_of(tiny()), objective):
            pass
    assert objective.here == 3 and len(objective.there) == 3


def test_without_gamma_the_objective_is_asked_once() -> None:
    student, calls = tiny(), []
    objective = objectives.build({"name": "pgd_at"})

    def evaluate(step: Step) -> Parts:
        calls.append(step)
        return objective(step)  # type: ignore[no-any-return]

    with worst_weights(0.0, evaluate, step_of(student), objective) as (parts, loss):
        assert torch.equal(loss, parts.loss.mean())
    assert len(calls) == 1


def test_in_training_it_begins_after_the_warm_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(name: str, **training: Any) -> list[dict[str, Any]]:
        return fit(make_job(epochs=3, **training), dataclasses.replace(bench, scratch=bench.scratch / name)).history

    plain, late, all_along = run("a"), run("b", awp=0.05, awp_warmup=1 / 3), run("c", awp=0.05)
    assert late[0] == plain[0] and all_along[0] != plain[0]
    assert late[1]["loss"] != plain[1]["loss"]


def test_a_loss_that_is_not_finite_is_noticed_and_the_weights_are_as_before(
    bench: Bench, job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = job(awp=0.01)
    before = copy.deepcopy(given.model.state_dict())

    def broken(self: Any, step: Any) -> Parts:
        logits = step.student(step.batch.x)
        return Parts(logits.sum(1) * float("nan"), {}, logits.detach(), None)

    monkeypatch.setattr(type(given.objective), "forward", broken)
    with pytest.raises(loop.BadInput, match="the loss is nan at step 1"):
        fit(given, bench)
    assert all(torch.equal(weight, before[name]) for name, weight in given.model.named_parameters())
