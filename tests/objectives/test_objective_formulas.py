"""Each objective against its equation: by hand on two features, and written out anew on a net with batch norm."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustdistill import objectives
from robustdistill.attacks import Batch
from robustdistill.objectives import OBJECTIVES, Objective, Parts, Step, Teacher
from robustdistill.rng import Draws
from robustdistill.threat import ThreatModel

Make = Callable[..., tuple[Objective, Step]]

SIGMA = 1 / (1 + math.exp(-0.2))  # of the logits (0.4, 0.6): as far as eps 0.1 goes from (0.5, 0.5)
TEACHER_KL = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)  # KL((1/4, 3/4) ‖ (1/2, 1/2))
# The worst case for KL((1/4, 3/4) ‖ ·) puts S(x') at (σ, 1 − σ); for CE with y = 0 at (1 − σ, σ).
WORST_KL = 0.25 * math.log(0.25 / SIGMA) + 0.75 * math.log(0.75 / (1 - SIGMA))
CE_KL = 0.25 * math.log(0.25 / (1 - SIGMA)) + 0.75 * math.log(0.75 / SIGMA)
CE_ADV = math.log(1 + math.exp(0.2))
OWN_KL = -math.log(2) - 0.5 * math.log(SIGMA) - 0.5 * math.log(1 - SIGMA)  # KL((1/2, 1/2) ‖ (σ, 1 − σ))
L1_ADV = (0.4 + abs(0.6 - math.log(3))) / 2  # S(x') = (0.4, 0.6), T(x) = (0, log 3)
L1_CLEAN = (0.5 + abs(0.5 - math.log(3))) / 2
DOUBT = 1 - 0.25**0.1  # T gives the label 0 a quarter wherever it is asked
# Its logits do not change with x, so their differences are even; S(x + d) − S(x − d) = (−0.2, 0.2) or the reverse.
EVEN_KL = -math.log(2) + 0.5 * math.log(1 + math.exp(0.4)) + 0.5 * math.log(1 + math.exp(-0.4))

BY_HAND: list[tuple[dict[str, Any], float]] = [
    ({"name": "ce"}, math.log(2)),
    ({"name": "ce", "label_smoothing": 0.2}, math.log(2)),
    ({"name": "pgd_at"}, CE_ADV),
    ({"name": "pgd_at", "label_smoothing": 0.2}, CE_ADV - 0.1 * 0.2),  # the other class costs 0.2 less
    ({"name": "fgsm_rs", "attack": {"step": 2.0}}, CE_ADV),  # from wherever, to the edge
    ({"name": "n_fgsm", "noise": 1e-6}, CE_ADV),
    ({"name": "n_fgsm", "noise": 1e-6, "step": 3.0}, math.log(1 + math.exp(0.6))),  # beyond it: S(x') = (0.2, 0.8)
    ({"name": "mart"}, 2 * CE_ADV + 5 * OWN_KL / 2),  # of two classes, the margin costs what CE does
    ({"name": "mart", "weight": 1.5}, 2 * CE_ADV + 0.75 * OWN_KL),
    ({"name": "trades"}, math.log(2) + 6 * OWN_KL),
    ({"name": "trades", "beta": 1.5}, math.log(2) + 1.5 * OWN_KL),
    ({"name": "kd"}, math.log(2) + TEACHER_KL),
    ({"name": "kd", "weight": 0.5}, math.log(2) + 0.5 * TEACHER_KL),
    ({"name": "ard"}, CE_KL),
    ({"name": "ard", "weight": 0.3, "ce_weight": 0.7}, 0.3 * CE_KL + 0.7 * math.log(2)),
    ({"name": "logit_l1"}, CE_ADV + 0.1 * L1_ADV),
    ({"name": "logit_l1", "weight": 2.0, "adversarial": False}, math.log(2) + 2 * L1_CLEAN),
    ({"name": "rslad"}, 5 / 6 * WORST_KL + 1 / 6 * TEACHER_KL),
    ({"name": "rslad", "adversarial_share": 1.0}, WORST_KL),
    # S(x') = (0.6, 0.4) at the worst case of the KL, so the label 0 costs log(1 + e^-0.2) there
    ({"name": "rslad", "weight": 0.5, "ce_weight": 2.0}, 0.5 * (5 * WORST_KL + TEACHER_KL) / 6 - 2 * math.log(SIGMA)),
    ({"name": "iad"}, CE_KL + DOUBT * OWN_KL),
    ({"name": "iad", "begin": 0.6, "weight": 0.3, "ce_weight": 0.7}, 0.3 * CE_KL + 0.7 * math.log(2)),
    ({"name": "adaad"}, WORST_KL),
    ({"name": "adaad", "adversarial_share": 0.75}, 0.75 * WORST_KL + 0.25 * TEACHER_KL),
    ({"name": "adaiad"}, WORST_KL + DOUBT * OWN_KL),
    # all have the same entropy, so the attacked part weighs nothing and the clean one all
    ({"name": "saad", "clean_weight": 2.0}, 2 * TEACHER_KL),
    # T is wrong about the label 0 at x: swapped, it wants (3/4, 1/4) of S(x) = (1/2, 1/2)
    ({"name": "dgad"}, TEACHER_KL + (SIGMA - 0.5) ** 2),
    ({"name": "absld"}, 5 / 6 * WORST_KL + 1 / 6 * TEACHER_KL),
    ({"name": "igdm"}, WORST_KL + 0.5 * EVEN_KL),
    ({"name": "igdm", "weight": 3.0, "base": {"name": "pgd_at"}}, CE_ADV + 1.5 * EVEN_KL),
]


@pytest.mark.parametrize(("spec", "expected"), BY_HAND)
def test_by_hand(spec: dict[str, Any], expected: float, two_logits: type[nn.Module], toy: Callable[..., Any]) -> None:
    index = torch.arange(3)
    batch = Batch(torch.full((3, 2), 0.5), torch.zeros(3, dtype=torch.int64), index)
    teacher = Teacher(two_logits(0.0, (0.0, math.log(3))))  # type: ignore[call-arg]
    student = two_logits(1.0, (0.0, 0.0))  # type: ignore[call-arg]
    step = Step(student, None, teacher, batch, ThreatModel("linf", 0.1), Draws(0), progress=0.5)
    objective = objectives.build(spec)
    objective.begin(student, toy(2), 0)
    parts = objective(step)
    assert parts.loss.tolist() == pytest.approx([expected] * 3, rel=1e-5)


def test_label_smoothing_by_hand(two_logits: type[nn.Module]) -> None:
    batch = Batch(torch.tensor([[0.0, 1.0]]), torch.tensor([0]), torch.tensor([0]))
    student = two_logits(math.log(3), (0.0, 0.0))  # type: ignore[call-arg]  # p = (1/4, 3/4)
    parts = objectives.build({"name": "ce", "label_smoothing": 0.2})(
        Step(student, None, None, batch, ThreatModel("linf", 0.1), Draws(0))
    )
    assert parts.loss.item() == pytest.approx(0.9 * math.log(4) + 0.1 * math.log(4 / 3))


# The equations once more, in numpy and float64, on logits: s = S(x), a = S(x'), b = S(2x − x'); t, u, v the same of T;
# y one-hot. Half of the training is done.


def soft(z: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    e = np.exp(z / temperature - (z / temperature).max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def ce(z: np.ndarray, y: np.ndarray) -> np.ndarray:
    return -np.log((soft(z) * y).sum(1))


def div(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return (p * np.log(p / q)).sum(1)


def doubt(u: np.ndarray, y: np.ndarray, beta: float) -> np.ndarray:
    return 1 - (soft(u) * y).sum(1) ** beta


def turned(z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The largest logit and that of the label change places, example by example."""
    z = z.copy()
    for row, label in zip(z, y.argmax(1), strict=True):
        top = row.argmax()
        row[top], row[label] = row[label], row[top]
    return z


def rises(u: np.ndarray) -> np.ndarray:
    entropy = -(soft(u) * np.log(soft(u))).sum(1)
    return entropy - entropy.min()


EQUATIONS: dict[str, tuple[dict[str, Any], Callable[..., np.ndarray]]] = {
    "ce": ({"label_smoothing": 0.1}, lambda s, a, t, y: 0.9 * ce(s, y) - 0.1 * np.log(soft(s)).mean(1)),
    "pgd_at": ({"label_smoothing": 0.1}, lambda s, a, t, y: 0.9 * ce(a, y) - 0.1 * np.log(soft(a)).mean(1)),
    "fgsm_rs": ({}, lambda s, a, t, y: ce(a, y)),
    "n_fgsm": (
        {"label_smoothing": 0.3, "noise": 1.5},
        lambda s, a, t, y: 0.7 * ce(a, y) - 0.3 * np.log(soft(a)).mean(1),
    ),
    "mart": (
        {"weight": 3.0},
        lambda s, a, t, y: (
            ce(a, y) - np.log(1 - (soft(a) * (1 - y)).max(1)) + 3 * div(soft(s), soft(a)) * (1 - (soft(s) * y).sum(1))
        ),
    ),
    "trades": ({"beta": 3.0}, lambda s, a, t, y: ce(s, y) + 3 * div(soft(s), soft(a))),
    "kd": (
        {"weight": 0.7, "temperature": 4.0, "teacher_temperature": 0.5},
        lambda s, a, t, y: ce(s, y) + 0.7 * 16 * div(soft(t, 2.0), soft(s, 4)),
    ),
    "ard": (
        {"weight": 0.7, "ce_weight": 0.2, "temperature": 3.0, "teacher_temperature": 0.5},
        lambda s, a, t, y: 0.7 * 9 * div(soft(t, 1.5), soft(a, 3)) + 0.2 * ce(s, y),
    ),
    "logit_l1": (
        {"weight": 0.4, "teacher_temperature": 0.5},
        lambda s, a, t, y: ce(a, y) + 0.4 * np.abs(a - 2 * t).sum(1) / t.shape[1],
    ),
    "iad": (
        {"weight": 0.7, "ce_weight": 0.2, "temperature": 3.0, "teacher_temperature": 0.5, "trust": 0.4},
        lambda s, a, t, u, y: (
            0.7 * (9 * div(soft(t, 1.5), soft(a, 3)) + doubt(u, y, 0.4) * div(soft(s), soft(a))) + 0.2 * ce(s, y)
        ),
    ),
    "adaad": (
        {"weight": 0.7, "adversarial_share": 0.8, "teacher_temperature": 0.6},
        lambda s, a, t, u: 0.7 * (0.8 * div(soft(u, 0.6), soft(a)) + 0.2 * div(soft(t, 0.6), soft(s))),
    ),
    "adaiad": (
        {"weight": 0.7, "ce_weight": 0.2, "temperature": 3.0, "teacher_temperature": 0.5},
        lambda s, a, u, y: (
            0.7 * (9 * div(soft(u, 1.5), soft(a, 3)) + doubt(u, y, 0.1) * div(soft(s), soft(a))) + 0.2 * ce(s, y)
        ),
    ),
    "saad": (
        {"weight": 0.7, "entropy_scale": 4.0, "gradient_weight": 3.0, "clean_weight": 0.2, "teacher_temperature": 0.5},
        lambda s, a, b, t, u, v: (
            0.7
            * (
                4 * rises(u) * (div(soft(u, 0.5), soft(a)) + 1.5 * div(soft(u - v, 0.5), soft(a - b)))
                + 0.2 * (1 - rises(u) / rises(u).max()) * div(soft(t, 0.5), soft(s))
            )
        ),
    ),
    "dgad": (
        {"weight": 0.7, "consistency": 2.0, "teacher_temperature": 0.5},
        lambda s, a, t, u, y: (
            0.7
            * np.where(
                t.argmax(1) == y.argmax(1),
                div(soft(turned(u, y), 0.5), soft(a)),
                div(soft(turned(t, y), 0.5), soft(s)),
            )
            + 2 * ((soft(a) - soft(s)) ** 2).sum(1) / y.shape[1]
        ),
    ),
    "absld": (
        {"weight": 0.6, "adversarial_share": 0.7, "teacher_temperature": 0.6},
        lambda s, a, t: 0.6 * (0.7 * div(soft(t, 0.6), soft(a)) + 0.3 * div(soft(t, 0.6), soft(s))),
    ),
    "igdm": (
        {"weight": 3.0, "teacher_temperature": 0.5, "base": {"name": "rslad", "weight": 0.6, "ce_weight": 0.3}},
        lambda s, a, b, t, u, v, y: (
            0.6 * (5 * div(soft(t), soft(a)) + div(soft(t), soft(s))) / 6
            + 0.3 * ce(a, y)
            + 1.5 * div(soft(u - v, 0.5), soft(a - b))
        ),
    ),
    "rslad": (
        {"weight": 0.6, "ce_weight": 0.3, "teacher_temperature": 0.6},
        lambda s, a, t, y: 0.6 * (5 * div(soft(t, 0.6), soft(a)) + div(soft(t, 0.6), soft(s))) / 6 + 0.3 * ce(a, y),
    ),
}


# Equations with more than these four: in files of their own.
ELSEWHERE = {"two_teachers": ["mtard", "b_mtard"], "companions": ["adr", "lbgat", "peeraid"]}


def test_each_objective_has_its_equation() -> None:
    assert sorted([*EQUATIONS, *(name for names in ELSEWHERE.values() for name in names)]) == sorted(OBJECTIVES)
    for file, names in ELSEWHERE.items():
        text = Path(__file__).with_name(f"test_objective_{file}.py").read_text()
        assert all(f'"name": "{name}"' in text for name in names)


@pytest.mark.parametrize("classes", [4, 2, 3, 10])
@pytest.mark.parametrize("name", EQUATIONS)
def test_loss_is_the_equation(name: str, classes: int, make: Make) -> None:
    options, equation = EQUATIONS[name]
    objective, step = make({"name": name, **options}, classes=classes)
    student = copy.deepcopy(step.student)
    parts: Parts = objective(step)
    x, y = step.batch.x, F.one_hot(step.batch.y, classes).numpy()
    x_adv = x if parts.x_adv is None else parts.x_adv
    with torch.no_grad():  # training mode: each pass is normalised by its own batch
        known = {"y": y}
        for (of_student, of_teacher), at in zip(("st", "au", "bv"), (x, x_adv, 2 * x - x_adv), strict=True):
            known |= {of_student: student(at).double().numpy(), of_teacher: step.teacher.model(at).double().numpy()}
    expected = equation(**{letter: known[letter] for letter in inspect.signature(equation).parameters})
    assert parts.loss.shape == (32,)
    np.testing.assert_allclose(parts.loss.detach().numpy(), expected, rtol=2e-4, atol=1e-5)
    assert (parts.x_adv is not None) == objective.adversarial
    np.testing.assert_allclose(parts.logits.numpy(), known["a" if objective.adversarial else "s"], rtol=1e-4, atol=1e-5)
    assert parts.terms and all(term.shape == (32,) and not term.requires_grad for term in parts.terms.values())


def climb(model: nn.Module, x: Tensor, begin: Tensor, loss: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The inner maximisation as the papers print it: ten steps of eps/4 along the sign of loss(S(x'), x')."""
    x_adv = begin
    for _ in range(10):
        x_adv = x_adv.detach().requires_grad_(True)
        (grad,) = torch.autograd.grad(loss(model(x_adv), x_adv), x_adv)
        moved = x_adv.detach() + 0.025 * grad.sign()
        x_adv = torch.min(torch.max(moved, x - 0.1), x + 0.1).clamp(0, 1)
    return x_adv.detach()


ONE_STEP = ("fgsm_rs", "n_fgsm")  # in test_objective_one_step.py


SHARP = {
    name: {"name": name, "teacher_temperature": 0.6} for name in ["rslad", "adaad", "adaiad", "saad", "dgad", "absld"]
}
SHARP["igdm"] = {"name": "igdm", "base": SHARP["adaad"]}


@pytest.mark.parametrize("name", [name for name in EQUATIONS if OBJECTIVES[name].adversarial and name not in ONE_STEP])
def test_inner_maximisation_is_the_published_one(name: str, make: Make) -> None:
    """CE or KL, from where, against which target, fixed or moving; S in evaluation mode although it trains."""
    objective, step = make(SHARP.get(name, {"name": name}))
    x, y, index = step.batch.x, step.batch.y, step.batch.index
    frozen = copy.deepcopy(step.student).eval()
    away_from_anywhere = (x + 0.1 * (2 * step.draws.uniform(x, index, "pgd") - 1)).clamp(0, 1)
    away_from_x = (x + 0.001 * step.draws.normal(x, index, "pgd")).clamp(0, 1)
    teacher, own, known = step.teacher.model, frozen(x).detach(), step.teacher.model(x)
    slope = torch.autograd.functional.jacobian(lambda at: teacher(at).gather(1, y[:, None]).sum(), x)

    def tangent(at: Tensor) -> Tensor:
        return known + F.one_hot(y, 4) * ((at - x) * slope).sum(dim=(1, 2), keepdim=True)[:, 0]

    def away(target: Callable[[Tensor], Tensor], temperature: float = 0.6) -> Callable[[Tensor, Tensor], Tensor]:
        def loss(z: Tensor, at: Tensor) -> Tensor:
            p = (target(at) / temperature).softmax(1)
            return (p * (p.log() - z.log_softmax(1))).sum()

        return loss

    begin, loss = {
        "mart": (away_from_x, lambda z, at: F.cross_entropy(z, y, reduction="sum")),
        "trades": (away_from_x, away(lambda at: own, 1.0)),
        "rslad": (away_from_x, away(lambda at: known)),
        "absld": (away_from_x, away(lambda at: known)),
        "saad": (away_from_x, away(tangent)),
        **dict.fromkeys(("adaad", "adaiad", "dgad", "igdm"), (away_from_x, away(teacher))),
    }.get(name, (away_from_anywhere, lambda z, at: F.cross_entropy(z, y, reduction="sum")))
    expected = climb(frozen, x, begin, loss)
    x_adv = objective(step).x_adv
    assert torch.isclose(x_adv, expected, atol=1e-5).float().mean() > 0.99  # rounding may flip a sign near 0


def test_optional_passes_that_have_no_weight_are_not_made(make: Make) -> None:
    """A clean pass in vain would cost time and, worse, move the batch-norm statistics."""
    passes = {}
    for spec in (
        {"name": "ard"},
        {"name": "ard", "ce_weight": 0.5},
        {"name": "rslad"},
        {"name": "rslad", "adversarial_share": 1.0},
        {"name": "logit_l1"},
        {"name": "trades"},
        {"name": "iad"},
        {"name": "iad", "begin": 0.6},
        {"name": "adaad"},
        {"name": "adaad", "adversarial_share": 0.9},
        {"name": "adaiad"},
        {"name": "dgad"},
        {"name": "absld"},
        {"name": "saad", "gradient_weight": 0.0},
        {"name": "saad"},
        {"name": "saad", "clean_weight": 0.1},
        {"name": "igdm"},  # S(x + d) is the base's own pass
        {"name": "igdm", "weight": 0.0},
        {"name": "igdm", "base": {"name": "rslad"}},
    ):
        objective, step = make(spec)
        objective(step)
        passes[str(spec)] = int(step.student[2].num_batches_tracked)
    assert list(passes.values()) == [1, 2, 2, 1, 1, 2, 2, 1, 1, 2, 2, 2, 2, 1, 2, 3, 2, 1, 3]
