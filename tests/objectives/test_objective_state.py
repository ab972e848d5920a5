"""What an objective carries from step to step: the class temperatures of ABSLD, exact under resume."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustdistill import objectives
from robustdistill.objectives import Objective, Parts, Step, Teacher

Make = Callable[..., tuple[Objective, Step]]


def advance(objective: Objective, step: Step, epoch: int = 0) -> Parts:
    """One whole step of training, without the update of the student."""
    parts: Parts = objective(dataclasses.replace(step, draws=step.draws.at(epoch)))
    objective.after_step(step.student)
    return parts


class Answers(nn.Module):
    """Fixed logits, whatever is asked."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(logits)

    def forward(self, x: Tensor) -> Tensor:
        return self.weight[: len(x)] + 0 * x.flatten(1).sum(1, keepdim=True)


def test_temperatures_move_once_an_epoch_by_hand(make: Make) -> None:
    """Mean losses of classes 0, 1, 2 of L0, log 3, L2, whose order decides who gets sharper labels."""
    objective, step = make({"name": "absld"}, classes=3)
    y = torch.tensor([0, 0, 1, 2])
    logits = torch.log(torch.tensor([[0.8, 0.1, 0.1], [0.8, 0.1, 0.1], [1 / 3, 1 / 3, 1 / 3], [0.45, 0.45, 0.1]]))
    batch = step.batch._replace(x=step.batch.x[:4], y=y, index=step.batch.index[:4])
    step = dataclasses.replace(step, student=Answers(logits), batch=batch)
    for _ in range(3):
        advance(objective, step, 0)
    assert objective.temperatures.tolist() == [[1.0] * 3] * 2  # not within the epoch
    advance(objective, step, 1)
    loss = -torch.tensor([0.8, 1 / 3, 0.1]).log()  # the mean of a class, not its sum: class 0 has two examples
    gap = loss - loss.mean()
    expected = 1 - 0.1 * gap / gap.abs().max()
    assert torch.allclose(objective.temperatures, expected.expand(2, 3)) and expected[2] < 1 < expected[0]
    assert objective.counts.tolist() == [2.0, 1.0, 1.0]  # begun anew
    advance(objective, step, 2)
    assert torch.allclose(objective.temperatures, (2 * expected - 1).expand(2, 3), atol=1e-6)
    for epoch in range(3, 80):
        advance(objective, step, epoch)
    assert objective.temperatures.amin() == 0.5 and 1 < objective.temperatures.amax() <= 5.0


def test_a_class_that_was_not_seen_keeps_its_temperature_and_equal_losses_move_none(make: Make) -> None:
    objective, step = make({"name": "absld"}, classes=3)
    same = dataclasses.replace(
        step, student=Answers(torch.zeros(32, 3)), batch=step.batch._replace(y=step.batch.y.clamp_max(1))
    )
    for epoch in range(3):
        assert torch.isfinite(advance(objective, same, epoch).loss).all()
    assert objective.temperatures.tolist() == [[1.0] * 3] * 2
    skewed = Answers(torch.tensor([[1.0, 0.0, 0.0]]).expand(32, 3).clone())
    for epoch in range(3, 5):
        advance(objective, dataclasses.replace(same, student=skewed), epoch)
    assert objective.temperatures[0].tolist() == pytest.approx([1.1, 0.9, 1.0])


def test_the_two_passes_are_measured_apart(make: Make) -> None:
    """The class that stands out most moves by h in each, however much smaller the losses of x are."""
    objective, step = make({"name": "absld"})
    objective.losses = torch.tensor([[8.0, 4.0, 4.0, 0.0], [0.0, 0.1, 0.1, 0.2]])
    objective.counts, objective.epoch = torch.ones(4), torch.tensor(0)
    advance(objective, step, 1)
    assert torch.allclose(objective.temperatures, torch.tensor([[0.9, 1.0, 1.0, 1.1], [1.1, 1.0, 1.0, 0.9]]))


def test_each_target_has_its_own_temperature_and_the_teachers_logits_are_left_alone(make: Make) -> None:
    """Published code divides one tensor in place by both, so each target gets their product."""
    objective, step = make({"name": "absld"})
    advance(objective, step, step.draws.epoch)
    objective.temperatures = torch.tensor([[2.0, 1.5, 1.0, 0.5], [4.0, 3.0, 0.8, 0.6]])
    given = step.teacher.logits(step.batch.x)
    kept = given.clone()
    step = dataclasses.replace(step, teacher=Teacher(Answers(given)))
    student = copy.deepcopy(step.student)
    parts = objective(step)
    assert torch.equal(given, kept)
    with torch.no_grad():
        expected = 0.0
        for share, at_x, t in (
            (5 / 6, parts.x_adv, objective.temperatures[0]),
            (1 / 6, step.batch.x, objective.temperatures[1]),
        ):
            p = (kept / t[step.batch.y][:, None]).softmax(1)
            expected = expected + share * (p * (p.log() - student(at_x).log_softmax(1))).sum(1)
    assert torch.allclose(parts.loss, expected, rtol=1e-4, atol=1e-6)


def test_the_attack_moves_away_from_its_own_target_and_each_pass_has_its_own_losses(make: Make) -> None:
    objective, step = make({"name": "absld"})
    advance(objective, step, step.draws.epoch)
    objective.temperatures = torch.tensor([[5.0, 0.5, 5.0, 0.5], [1.0, 1.0, 1.0, 1.0]])
    student, before, y = copy.deepcopy(step.student), objective.losses.clone(), step.batch.y
    x_adv = advance(objective, step, step.draws.epoch).x_adv
    logits = step.teacher.logits(step.batch.x)
    hot = logits / objective.temperatures[0, y][:, None]
    frozen = dataclasses.replace(step, student=student)
    assert torch.equal(x_adv, objective.adversary(frozen, reference=hot))
    assert not torch.equal(x_adv, objective.adversary(frozen, reference=logits))
    for row, at_x in enumerate((x_adv, step.batch.x)):
        ce = -student(at_x).log_softmax(1)[torch.arange(32), y]
        expected = torch.stack([ce[y == c].sum() for c in range(4)])
        assert torch.allclose(objective.losses[row] - before[row], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("spec", [{"name": "absld"}, {"name": "igdm", "base": {"name": "absld"}}])
@pytest.mark.parametrize("stop", [1, 3, 4, 6])
def test_resumed_anywhere_the_temperatures_go_on(
    spec: dict[str, Any], stop: int, make: Make, toy: Callable[..., Any]
) -> None:
    """Two steps an epoch; stopped within one and between two."""
    objective, step = make(spec)
    halves = [step.batch._replace(x=b.x, y=b.y, index=b.index) for b in (cut(step, 0), cut(step, 16))]

    def steps(objective: Objective, which: range) -> list[Tensor]:
        return [
            advance(objective, dataclasses.replace(step, batch=halves[k % 2]), epoch=k // 2).loss.detach()
            for k in which
        ]

    def fresh() -> Objective:
        objective = objectives.build(spec)
        objective.begin(step.student, toy(), 8)
        return objective

    step.student.eval()
    whole = steps(objective, range(8))
    first, resumed = fresh(), fresh()
    steps(first, range(stop))
    saved = {name: tensor.clone() for name, tensor in first.state_dict().items()}
    resumed.load_state_dict(saved)
    for ours, theirs in zip(steps(resumed, range(stop, 8)), whole[stop:], strict=True):
        assert torch.equal(ours, theirs)
    assert all(torch.equal(value, objective.state_dict()[name]) for name, value in resumed.state_dict().items())
    assert any((value != 1).any() for name, value in saved.items() if name.endswith("temperatures")) == (stop > 2)


@pytest.mark.parametrize("spec", [{"name": "absld"}, {"name": "igdm", "base": {"name": "absld"}}])
def test_asked_twice_in_one_step_it_answers_twice_from_one_state(spec: dict[str, Any], make: Make) -> None:
    """Also at an epoch's first step, where temperatures move."""
    objective, step = make(spec, progress=0.0)
    step.student.eval()
    for epoch in (0, 0, 1, 1, 2):
        step = dataclasses.replace(step, draws=step.draws.at(epoch))
        before = {name: tensor.clone() for name, tensor in objective.state_dict().items()}
        first, second = objective(step).loss, objective(step).loss
        assert torch.equal(first, second)
        assert all(torch.equal(value, before[name]) for name, value in objective.state_dict().items())
        objective.after_step(step.student)
    counted = {name: value.sum() for name, value in objective.state_dict().items() if name.endswith("counts")}
    assert list(counted.values()) == [32.0]


def cut(step: Step, begin: int) -> Any:
    batch = step.batch
    return batch._replace(
        x=batch.x[begin : begin + 16], y=batch.y[begin : begin + 16], index=batch.index[begin : begin + 16]
    )
