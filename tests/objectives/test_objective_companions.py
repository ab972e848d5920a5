"""LBGAT, PeerAiD and ADR: the equations in float64 and by hand, and who may learn from whom."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_objective_formulas import ce, climb, div, soft
from torch import Tensor, nn

from robustdistill import objectives
from robustdistill.attacks import Batch
from robustdistill.errors import BadInput
from robustdistill.models import ModelSpec
from robustdistill.objectives import Objective, Step
from robustdistill.objectives.adr import annealed
from robustdistill.rng import Draws
from robustdistill.threat import ThreatModel

Make = Callable[..., tuple[Objective, Step]]
NAMES = ["lbgat", "peeraid"]


def answers(step: Step, student: nn.Module, companion: nn.Module, x_adv: Tensor) -> list[np.ndarray]:
    """s, a, g, p: logits of the student for x and x', of the companion for x and x', each pass in training mode."""
    x = step.batch.x
    with torch.no_grad():
        logits = (student(x), student(x_adv), companion(x), companion(x_adv))
    return [z.double().numpy() for z in logits]


@pytest.mark.parametrize(
    ("spec", "equation"),
    [
        (
            {"name": "lbgat", "beta": 3.0},
            lambda s, a, g, p, y: ((a - g) ** 2).mean(1) + ce(g, y) + 3 * div(soft(s), soft(a)),
        ),
        ({"name": "lbgat", "beta": 0.0}, lambda s, a, g, p, y: ((a - g) ** 2).mean(1) + ce(g, y)),
        (
            {"name": "peeraid"},
            lambda s, a, g, p, y: (
                25 * (div(soft(p, 5), soft(a, 5)) + div(soft(s, 5), soft(a, 5)))
                + ce(p, y)
                + 0.1 * div(soft(a), soft(p))
            ),
        ),
        (
            {"name": "peeraid", "ce_weight": 0.3, "weight": 0.5, "self_weight": 0.0, "temperature": 2.0}
            | {"peer_ce_weight": 0.7, "peer_weight": 1.0},
            lambda s, a, g, p, y: (
                0.3 * ce(a, y) + 2 * div(soft(p, 2), soft(a, 2)) + 0.7 * ce(p, y) + div(soft(a), soft(p))
            ),
        ),
    ],
)
def test_loss_is_the_equation(spec: dict[str, Any], equation: Callable[..., np.ndarray], make: Make) -> None:
    objective, step = make(spec)
    student, companion = copy.deepcopy(step.student), copy.deepcopy(objective.companion)
    parts = objective(step)
    y = F.one_hot(step.batch.y, 4).numpy()
    s, a, g, p = answers(step, student, companion, parts.x_adv)
    np.testing.assert_allclose(parts.loss.detach().numpy(), equation(s, a, g, p, y), rtol=2e-4, atol=1e-5)
    np.testing.assert_allclose(parts.logits.numpy(), a, rtol=1e-4, atol=1e-5)
    assert all(term.shape == (32,) and not term.requires_grad for term in parts.terms.values())
    assert int(step.student[2].num_batches_tracked) == (1 if 0.0 in (spec.get("beta"), spec.get("self_weight")) else 2)
    assert int(objective.companion.net[2].num_batches_tracked) == 1  # not by the reference pass of the attack


def gradients(loss: Tensor, model: nn.Module) -> Tensor:
    grads = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True, materialize_grads=True)
    return torch.cat([grad.flatten() for grad in grads])


def test_the_guide_learns_from_label_and_student_but_not_from_the_divergence(make: Make) -> None:
    objective, step = make({"name": "lbgat"})
    student, guide = copy.deepcopy(step.student), copy.deepcopy(objective.companion)
    parts = objective(step)
    x, y = step.batch.x, step.batch.y
    own, clean, adv = guide(x), student(x), student(parts.x_adv)
    square, label = (adv - own).square().mean(), F.cross_entropy(own, y)
    divergence = (clean.softmax(1) * (clean.log_softmax(1) - adv.log_softmax(1))).sum(1).mean()
    close = {"rtol": 1e-3, "atol": 1e-5}
    total = parts.loss.mean()
    torch.testing.assert_close(gradients(total, objective.companion), gradients(square + label, guide), **close)
    torch.testing.assert_close(gradients(total, step.student), gradients(square + 6 * divergence, student), **close)
    assert gradients(square, guide).norm() > 0.05 * gradients(label, guide).norm()  # a detached guide would be seen


def test_peer_and_student_each_minimise_their_own_loss(make: Make) -> None:
    objective, step = make({"name": "peeraid", "peer_weight": 1.0, "ce_weight": 0.5})
    student, peer = copy.deepcopy(step.student), copy.deepcopy(objective.companion)
    parts = objective(step)
    x, y = step.batch.x, step.batch.y
    clean, adv, other = student(x), student(parts.x_adv), peer(parts.x_adv)

    def divergence(target: Tensor, z: Tensor, t: float) -> Tensor:
        p, q = (target / t).log_softmax(1), (z / t).log_softmax(1)
        return t * t * (p.exp() * (p - q)).sum(1).mean()

    of_student = divergence(other.detach(), adv, 5) + divergence(clean, adv, 5) + 0.5 * F.cross_entropy(adv, y)
    of_peer = F.cross_entropy(other, y) + divergence(adv.detach(), other, 1)
    close = {"rtol": 1e-3, "atol": 1e-5}
    total = parts.loss.mean()
    torch.testing.assert_close(gradients(total, step.student), gradients(of_student, student), **close)
    torch.testing.assert_close(gradients(total, objective.companion), gradients(of_peer, peer), **close)
    leaked = gradients(divergence(adv, other, 1), student)  # the public code's: it would be seen
    assert leaked.norm() > 0.01 * gradients(of_student, student).norm()


@pytest.mark.parametrize("name", [*NAMES, "adr"])
def test_inner_maximisation_is_the_published_one(name: str, make: Make) -> None:
    objective, step = make({"name": name})
    x, index = step.batch.x, step.batch.index
    frozen = copy.deepcopy(step.student).eval()
    begin = (x + 0.001 * step.draws.normal(x, index, "pgd")).clamp(0, 1)
    target = frozen(x).detach().softmax(1)
    if name == "peeraid":
        target = copy.deepcopy(objective.companion).eval()(x).detach().softmax(1)
    if name == "adr":
        begin = (x + 0.1 * (2 * step.draws.uniform(x, index, "pgd") - 1)).clamp(0, 1)
        target = objective.rectified(step)
    expected = climb(frozen, x, begin, lambda z, at: -(target * z.log_softmax(1)).sum())  # KL but for a constant
    assert torch.isclose(objective(step).x_adv, expected, atol=1e-5).float().mean() > 0.99


@pytest.mark.parametrize("name", NAMES)
def test_the_attack_leaves_the_companion_bit_equal(name: str, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    objective, step = make({"name": name})
    companion, seen = objective.companion, []
    before = copy.deepcopy(companion.state_dict())

    def after_the_attack(*args: Any, **kwargs: Any) -> Tensor:
        x_adv = adversary(*args, **kwargs)
        seen.append(all(torch.equal(tensor, before[key]) for key, tensor in companion.state_dict().items()))
        assert all(module.training for module in companion.modules())
        assert all(p.requires_grad and p.grad is None for p in companion.parameters())
        return x_adv

    adversary = objective.adversary
    monkeypatch.setattr(objective, "adversary", after_the_attack)
    objective(step)
    assert seen == [True]


@pytest.mark.parametrize("name", NAMES)
def test_a_companion_is_the_students_architecture_or_the_one_asked_for(name: str) -> None:
    spec = ModelSpec({"name": "small_cnn", "size": "nano"}, (1, 8, 8), 3, 0.0, 1.0, (0.5,), (0.3,))
    built = []
    for options, seed in (({}, 0), ({}, 0), ({}, 1), ({"companion": {"name": "gru", "hidden": 8}}, 0)):
        objective = objectives.build({"name": name, **options})
        objective.begin(nn.Identity(), spec, seed)
        built.append(objective.companions()[0])
        assert objective.companions() == [objective.companion]
    assert built[0].spec == spec and built[3].spec.model == {"name": "gru", "hidden": 8}
    one, again, other = (model.net.head.weight for model in built[:3])
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert built[3](torch.rand(2, 1, 8, 8)).shape == (2, 3)
    with pytest.raises(BadInput, match="hiden") as caught:
        objectives.build({"name": name, "companion": {"name": "gru", "hiden": 8}}, "student.objective")
    assert "student.objective.companion" in str(caught.value)


def still(two_logits: type[nn.Module], name: str, **options: Any) -> tuple[Any, Step]:
    """A student z = x at x = (1/2, 1/2), y = 0, eps = 0.1 and a companion that always answers (1/4, 3/4)."""
    batch = Batch(torch.full((3, 2), 0.5), torch.zeros(3, dtype=torch.int64), torch.arange(3))
    student = two_logits(1.0, (0.0, 0.0))  # type: ignore[call-arg]
    objective = objectives.build({"name": name, **options})
    other = two_logits(0.0, (0.0, math.log(3)))  # type: ignore[call-arg]
    setattr(objective, "average" if name == "adr" else "companion", other)
    return objective, Step(student, None, None, batch, ThreatModel("linf", 0.1), Draws(0))


SIGMA = 1 / (1 + math.exp(-0.2))


def test_by_hand(two_logits: type[nn.Module]) -> None:
    own = -math.log(2) - 0.5 * math.log(SIGMA) - 0.5 * math.log(1 - SIGMA)
    objective, step = still(two_logits, "lbgat", beta=2.0)
    # S(x') is (0.4, 0.6) or (0.6, 0.4), as the start has it: the KL is the same, the square is not
    a = objective.adversary(step)
    square = (a[:, 0] ** 2 + (a[:, 1] - math.log(3)) ** 2) / 2
    expected = square + math.log(4) + 2 * own
    assert sorted(a[0].tolist()) == pytest.approx([0.4, 0.6])
    torch.testing.assert_close(objective(step).loss, expected, rtol=1e-4, atol=1e-5)
    objective, step = still(two_logits, "peeraid", temperature=1.0)
    worst = 0.25 * math.log(0.25 / SIGMA) + 0.75 * math.log(0.75 / (1 - SIGMA))  # S(x') = (σ, 1 − σ)
    back = SIGMA * math.log(SIGMA / 0.25) + (1 - SIGMA) * math.log((1 - SIGMA) / 0.75)
    assert objective(step).loss.tolist() == pytest.approx([worst + own + math.log(4) + 0.1 * back] * 3, rel=1e-4)


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.9, [1 - 0.4 * 0.75, 0.4 * 0.75]),  # p = (1/4, 3/4), y = 0: λ' = 0.9 − (3/4 − 1/4)
        (0.3, [1.0, 0.0]),  # clipped: the average is not to be trusted, the label stays as it is
    ],
)
def test_the_rectified_label_by_hand(share: float, expected: list[float], two_logits: type[nn.Module]) -> None:
    options = {"share": share, "last_share": share, "temperature": 1.0, "last_temperature": 1.0}
    objective, step = still(two_logits, "adr", **options)
    label = objective.rectified(step)
    assert label[0].tolist() == pytest.approx(expected, abs=1e-6) and not label.requires_grad
    # the larger class pulls: S(x') = (1 − σ, σ) if q_0 > 1/2
    worst = -expected[0] * math.log(1 - SIGMA) - expected[1] * math.log(SIGMA)
    assert objective(step).loss.tolist() == pytest.approx([worst] * 3, rel=1e-4)


@pytest.mark.parametrize("progress", [0.0, 0.4, 0.99])
def test_adr_is_the_equation(progress: float, make: Make) -> None:
    objective, step = make({"name": "adr"}, progress=progress)
    with torch.no_grad():
        objective.average[4].weight *= 6  # an average with opinions, other than the student's
    step.student.train()
    student, average = copy.deepcopy(step.student), copy.deepcopy(objective.average).eval()
    parts = objective(step)
    with torch.no_grad():
        a, m = student(parts.x_adv).double().numpy(), average(step.batch.x).double().numpy()
    fall = (1 + math.cos(math.pi * progress)) / 2
    p, y = soft(m, 2.0 + 0.5 * fall), step.batch.y.numpy()
    trust = np.clip(0.95 - 0.25 * fall - (p.max(1) - p[np.arange(32), y]), 0, 1)[:, None]
    q = trust * p + (1 - trust) * np.eye(4)[y]
    np.testing.assert_allclose(parts.loss.detach().numpy(), -(q * np.log(soft(a))).sum(1), rtol=2e-4, atol=1e-5)
    assert len(set(np.round(trust[:, 0], 4))) > 4  # some examples are trusted less than others


def test_annealing_by_hand() -> None:
    assert [annealed(2.5, 2.0, at) for at in (0.0, 0.5, 1.0)] == pytest.approx([2.5, 2.25, 2.0])
    assert annealed(0.7, 0.95, 0.25) == pytest.approx(0.95 - 0.25 * (1 + math.sqrt(0.5)) / 2)


def test_the_average_follows_the_student_and_gets_no_gradient(make: Make) -> None:
    objective, step = make({"name": "adr", "decay": 0.9})
    assert objective.companions() == [] and list(objective.parameters())
    assert all(not p.requires_grad for p in objective.parameters())
    before = copy.deepcopy(objective.average.state_dict())
    objective(step).loss.mean().backward()
    assert all(torch.equal(tensor, before[key]) for key, tensor in objective.average.state_dict().items())
    assert all(p.grad is None for p in objective.average.parameters())
    with torch.no_grad():
        for parameter in step.student.parameters():
            parameter += 1.0
    objective.after_step(step.student)
    theirs = step.student.state_dict()
    for key, ours in objective.average.state_dict().items():
        moved = 0.9 * before[key] + 0.1 * theirs[key] if ours.is_floating_point() else theirs[key]
        torch.testing.assert_close(ours, moved)
    assert int(theirs["2.num_batches_tracked"]) == 1  # and running means are among what was averaged


def test_the_average_answers_in_evaluation_mode_although_the_objective_trains(make: Make) -> None:
    objective, step = make({"name": "adr"}, progress=0.0)
    expected = copy.deepcopy(objective.average).eval()(step.batch.x) / 2.5
    assert objective.average.training  # the loop put the whole objective in training mode
    p = expected.detach().softmax(1)
    trust = 0.7 - (p.max(1).values - p.gather(1, step.batch.y[:, None])[:, 0])
    wanted = trust[:, None] * p + (1 - trust[:, None]) * F.one_hot(step.batch.y, 4)
    torch.testing.assert_close(objective.rectified(step), wanted, rtol=1e-4, atol=1e-6)
