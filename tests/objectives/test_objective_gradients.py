"""Gradients against finite differences, in float64: of the inner attack through the teacher, and of the loss itself."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustdistill.attacks import Target, TorchTarget
from robustdistill.engine.twin import Twin
from robustdistill.objectives import Objective, Step, Teacher

Make = Callable[..., tuple[Objective, Step]]
H = 1e-5


@pytest.fixture
def exact(make: Make) -> Make:
    """As make, in float64, with a known x' at half of eps from x."""

    def build(spec: dict[str, Any], **given: Any) -> tuple[Objective, Step]:
        objective, step = make(spec, **given)
        batch = step.batch._replace(x=step.batch.x.double())
        x_adv = batch.x + 0.05 * step.draws.normal(batch.x, batch.index, "known").sign()
        teacher = Teacher(step.teacher.model.double())
        return objective, dataclasses.replace(
            step, student=step.student.double(), batch=batch, teacher=teacher, x_adv=x_adv
        )

    return build


def twin(student: nn.Module) -> Twin:
    return Twin(copy.deepcopy(student).eval())  # a module that is no Classifier is attacked in the mode it has


def p(z: Tensor) -> Tensor:
    return z.softmax(1)


def kl_of(p: Tensor, q: Tensor) -> Tensor:
    return (p * (p / q).log()).sum(1)


def slopes(loss: Callable[[Tensor], Tensor], at: Tensor, h: float = H) -> Tensor:
    """Central differences of loss [B] by each feature of each example, of the shape of `at`."""
    found = torch.zeros_like(at)
    for place in range(at[0].numel()):
        move = torch.zeros_like(at)
        move.flatten(1)[:, place] = h
        found.flatten(1)[:, place] = (loss(at + move) - loss(at - move)) / (2 * h)
    return found


@pytest.mark.parametrize("seam", [TorchTarget, twin])
@pytest.mark.parametrize("name", ["adaad", "adaiad", "dgad"])
def test_the_moving_attack_climbs_through_the_teacher_too(
    name: str, seam: Callable[[nn.Module], Target], exact: Make
) -> None:
    objective, step = exact({"name": name})
    student, teacher = step.student, step.teacher.model
    target = seam(student)  # in evaluation mode, as the student is not
    ours = target.gradient(step.batch._replace(x=step.x_adv), objective.moving_goal(step))
    student.eval()

    @torch.no_grad()
    def divergence(at: Tensor) -> Tensor:
        return kl_of(p(teacher(at)), p(student(at)))

    @torch.no_grad()
    def half(at: Tensor) -> Tensor:
        return kl_of(p(teacher(step.x_adv)), p(student(at)))

    torch.testing.assert_close(ours, slopes(divergence, step.x_adv), rtol=1e-6, atol=1e-7)
    stopped = slopes(half, step.x_adv)  # with the teacher under no_grad
    assert (ours - stopped).norm() > 0.1 * ours.norm() and (ours.sign() != stopped.sign()).float().mean() > 0.05
    assert all(weight.grad is None for weight in [*teacher.parameters(), *student.parameters()])


@pytest.mark.parametrize("seam", [TorchTarget, twin])
def test_saads_attack_climbs_on_the_teachers_tangent(seam: Callable[[nn.Module], Target], exact: Make) -> None:
    objective, step = exact({"name": "saad", "attack": {"steps": 1}})
    student, teacher, (x, y) = step.student, step.teacher.model, step.batch[:2]
    seen: list[Tensor] = []
    target = seam(student)

    class Spy(TorchTarget):
        def gradient(self, batch: Any, goal: Any) -> Tensor:
            seen.append(target.gradient(batch._replace(x=step.x_adv), goal))
            return seen[0]

    before = [module.training for module in student.modules()]
    objective.adversary(dataclasses.replace(step, target=Spy(student), x_adv=None))
    assert [module.training for module in student.modules()] == before
    student.eval()
    with torch.no_grad():
        known = teacher(x)
        slope = slopes(lambda at: teacher(at).gather(1, y[:, None])[:, 0], x)

        def divergence(at: Tensor) -> Tensor:
            hat = known.clone()
            hat[torch.arange(len(y)), y] += ((at - x) * slope).sum(dim=(1, 2))
            return kl_of(p(hat), p(student(at)))

        torch.testing.assert_close(seen[0], slopes(divergence, step.x_adv), rtol=1e-5, atol=1e-7)
    assert all(weight.grad is None for weight in [*teacher.parameters(), *student.parameters()])


@pytest.mark.parametrize("name", ["iad", "adaad", "adaiad", "saad", "dgad", "absld", "igdm", "trades", "rslad", "ard"])
def test_no_branch_of_the_student_is_cut_off(name: str, exact: Make) -> None:
    """At a given x' the loss is a function of the student's weights alone: its slope along a direction is the one that
    is backpropagated. A detached S(x) (IAD, DGAD, TRADES) or S(x − d) (IGDM, SAAD) has another."""
    objective, step = exact({"name": name, **({"clean_weight": 0.5} if name == "saad" else {})})
    weights = list(step.student.parameters())
    grads = torch.autograd.grad(objective(step).loss.mean(), weights)
    direction = [step.draws.normal(w, torch.arange(len(w)), f"direction/{k}") for k, w in enumerate(weights)]
    sides = []
    for h in (H, -2 * H):
        with torch.no_grad():
            for weight, along in zip(weights, direction, strict=True):
                weight += h * along
            sides.append(objective(step).loss.mean().item())
    along_it = sum(float((grad * along).sum()) for grad, along in zip(grads, direction, strict=True))
    assert abs(along_it) > 1e-2
    assert (sides[0] - sides[1]) / (2 * H) == pytest.approx(along_it, rel=1e-5)


def test_the_gradient_of_trades_flows_through_the_clean_branch(make: Make) -> None:
    """Detached, the loss has the same value and another gradient: the bug that cost a re-implementation 3 points."""
    objective, step = make({"name": "trades"})
    parts = objective(step)
    student = copy.deepcopy(step.student)

    def gradient(detach: bool) -> tuple[Tensor, Tensor]:
        clean, adv = student(step.batch.x), student(parts.x_adv)
        p = clean.softmax(1).detach() if detach else clean.softmax(1)
        loss = (F.cross_entropy(clean, step.batch.y) + 6 * (p * (p.log() - adv.log_softmax(1))).sum(1).mean()).mean()
        grads = torch.autograd.grad(loss, list(student.parameters()))
        return loss.detach(), torch.cat([g.flatten() for g in grads])

    (right, full), (same, cut) = gradient(detach=False), gradient(detach=True)
    grads = torch.autograd.grad(parts.loss.mean(), list(step.student.parameters()))
    ours = torch.cat([g.flatten() for g in grads])
    assert torch.isclose(right, same) and torch.isclose(parts.loss.mean(), right, rtol=1e-4)
    assert torch.allclose(ours, full, rtol=1e-3, atol=1e-5)
    assert (ours - cut).norm() > 0.05 * full.norm()


@pytest.mark.parametrize("name", ["iad", "adaad", "adaiad", "saad", "dgad", "absld", "igdm"])
def test_the_teacher_is_a_constant_of_the_outer_loss(name: str, exact: Make) -> None:
    """Even one whose weights somebody has set free again; and x' takes no gradient with it."""
    objective, step = exact({"name": name, **({"clean_weight": 0.5} if name == "saad" else {})})
    step.teacher.model.requires_grad_(True)
    parts = objective(dataclasses.replace(step, x_adv=step.x_adv.requires_grad_(False)))
    parts.loss.mean().backward()
    assert all(weight.grad is None for weight in step.teacher.model.parameters())
    assert parts.x_adv is step.x_adv and step.batch.x.grad is None and not parts.x_adv.requires_grad


def test_igdm_compares_derivatives_along_d(exact: Make) -> None:
    """T(x + d) − T(x − d) is 2 ⟨∇T, d⟩ up to d³: halving a small d quarters what a first-order term would leave."""
    objective, step = exact({"name": "igdm", "base": {"name": "pgd_at"}})
    step.student.eval()
    along = step.draws.normal(step.batch.x, step.batch.index, "along")
    d = 1e-3 * along

    def pushed(model: nn.Module) -> Tensor:
        return torch.autograd.functional.jvp(model, step.batch.x, 2 * d)[1]

    parts = objective(dataclasses.replace(step, x_adv=step.batch.x + d))
    expected = kl_of(p(pushed(step.teacher.model)), p(pushed(step.student)))
    torch.testing.assert_close(parts.terms["kl_gradient"], expected.detach(), rtol=1e-3, atol=1e-12)
    base = objective.base(dataclasses.replace(step, x_adv=step.batch.x + d))
    torch.testing.assert_close(parts.loss, base.loss + 0.5 * parts.terms["kl_gradient"])


def test_igdm_asks_the_teacher_nothing_twice(make: Make) -> None:
    for base, passes in (("adaad", 2), ("rslad", 3), ("pgd_at", 2)):
        objective, step = make({"name": "igdm", "base": {"name": base, "attack": {"steps": 1}}})
        asked: list[Tensor] = []
        step.teacher.model.register_forward_hook(
            lambda module, inputs, answer, asked=asked: asked.append(inputs[0].requires_grad)
        )
        objective(step)
        assert asked.count(False) == passes and len(step.student._forward_hooks) == 0, base


def test_igdms_ramp_begins_at_nothing(make: Make) -> None:
    objective, step = make({"name": "igdm"}, progress=0.0)
    step.student.eval()
    parts, again = objective(step), objective.base(step)
    assert torch.equal(parts.loss, again.loss) and "kl_gradient" not in parts.terms


def test_saads_weights_by_hand(exact: Make) -> None:
    """Four entropies: of a certain teacher 0, of one between two, three, four classes log 2, log 3, log 4."""
    objective, step = exact({"name": "saad", "clean_weight": 1.0, "gradient_weight": 0.0})
    rows = torch.full((32, 4), -1e4, dtype=torch.float64)
    for k in range(32):
        rows[k, : k % 4 + 1] = 0.0

    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return rows[: len(x)] + 0 * x.sum()

    step = dataclasses.replace(step, teacher=Teacher(Fixed()))
    parts = objective(step)
    entropy = torch.tensor([1, 2, 3, 4], dtype=torch.float64).log().repeat(8)
    torch.testing.assert_close(parts.terms["entropy_weight"], 5 * entropy)
    share = 1 - entropy / entropy.max()
    expected = 5 * entropy * parts.terms["kl_adv"] + share * parts.terms["kl_clean"]
    torch.testing.assert_close(parts.loss.detach(), expected)
    alone = dataclasses.replace(step, batch=step.batch._replace(x=step.batch.x[:1], y=step.batch.y[:1]))
    step.student.eval()
    alone = objective(dataclasses.replace(alone, x_adv=step.x_adv[:1]))
    assert torch.equal(alone.loss.detach(), alone.terms["kl_clean"])  # one example: weight 0, no 0 / 0


@pytest.mark.parametrize("wrong", ["all", "none"])
def test_dgad_of_a_teacher_that_is_always_wrong_or_never(wrong: str, exact: Make) -> None:
    """1 / (N − n) of published code is 1 / 0 here."""
    objective, step = exact({"name": "dgad", "consistency": 0.0})
    best = step.teacher.logits(step.batch.x).argmax(1)
    y = best if wrong == "none" else (best + 1) % 4
    parts = objective(dataclasses.replace(step, batch=step.batch._replace(y=y)))
    assert torch.isfinite(parts.loss).all()
    assert torch.equal(parts.loss.detach(), parts.terms["kl_adv" if wrong == "none" else "kl_clean"])
    grads = torch.autograd.grad(parts.loss.mean(), list(step.student.parameters()))
    assert all(torch.isfinite(grad).all() for grad in grads)
