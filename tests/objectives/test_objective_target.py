"""The options all students share: what the target is, whom they trust, and that they reach every objective."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from robustdistill.objectives import OBJECTIVES, Objective, Step
from robustdistill.objectives.kl import kl
from robustdistill.objectives.target import Distilled, corrected, mixed, shape, trusted

Make = Callable[..., tuple[Objective, Step]]

STUDENTS = [name for name, found in OBJECTIVES.items() if issubclass(found.Config, Distilled)]
Y = torch.tensor([0, 2, 1])
LOGITS = torch.tensor([[2.0, 1.0, -1.0], [0.5, 3.0, 0.0], [-1.0, 4.0, 2.0]])  # right, wrong, right


def test_by_hand() -> None:
    """p = (1/4, 3/4), y = 0, w = 0.2: q = (0.2 + 0.8 / 4, 0.8 · 3 / 4)."""
    logits, y = torch.tensor([[0.0, math.log(3)]]), torch.tensor([0])
    assert shape(logits, y, Distilled(label_share=0.2)).softmax(1)[0].tolist() == pytest.approx([0.4, 0.6])
    swapped = shape(logits, y, Distilled(when_wrong="swap"))
    assert swapped[0].tolist() == pytest.approx([math.log(3), 0.0])
    assert trusted(logits, y, Distilled(when_wrong="down_weight", wrong_weight=0.3)).tolist() == pytest.approx([0.3])
    both = shape(logits, y, Distilled(when_wrong="swap", teacher_temperature=0.5, label_share=0.5))
    assert both.softmax(1)[0].tolist() == pytest.approx([0.95, 0.05])  # (9/10, 1/10), then half the label


@pytest.mark.parametrize("share", [0.0, 1e-6, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_target_is_the_mixture(share: float, temperature: float) -> None:
    z = LOGITS.double()
    got = shape(z, Y, Distilled(teacher_temperature=temperature, label_share=share)).softmax(1).numpy()
    p = np.exp(z.numpy() / temperature)
    p /= p.sum(1, keepdims=True)
    np.testing.assert_allclose(got, share * np.eye(3)[Y] + (1 - share) * p, atol=1e-12)


def test_a_small_share_changes_the_logits_little_and_none_not_at_all() -> None:
    options = Distilled()
    assert torch.equal(shape(LOGITS, Y, options), LOGITS)
    assert shape(LOGITS.bfloat16(), Y, options).dtype == torch.bfloat16
    torch.testing.assert_close(mixed(LOGITS, Y, 1e-6), LOGITS, atol=1e-4, rtol=0)
    torch.testing.assert_close(mixed(LOGITS, Y, 0.4).logsumexp(1), LOGITS.logsumexp(1))
    assert mixed(LOGITS.bfloat16(), Y, 0.4).dtype == torch.float32


@pytest.mark.parametrize("share", [1e-45, 0.3, 1.0])
@pytest.mark.parametrize("size", [1e4, 1e30, float("inf")])
def test_no_extreme_logit_breaks_it(share: float, size: float) -> None:
    """Impossible classes and teachers that are sure of the wrong one: loss and gradient stay numbers."""
    logits = torch.tensor([[-size, 0.0, 1.0], [size if size < math.inf else 1e4, 0.0, -size], [0.0, -size, -size]])
    y = torch.tensor([0, 2, 0])
    target = mixed(logits, y, share)
    student = torch.tensor([[3.0, -2.0, 0.0]] * 3, requires_grad=True)
    loss = kl(target, student)
    loss.sum().backward()
    assert torch.isfinite(loss).all() and torch.isfinite(student.grad).all()
    if share == 1 and size != 1e30:  # where float32 has no digits left for log 2
        torch.testing.assert_close(target.softmax(1), torch.eye(3)[y])


def test_the_teachers_gradient_passes_through() -> None:
    """Of all three options together, against finite differences."""
    options = Distilled(when_wrong="swap", teacher_temperature=0.7, label_share=0.3)
    z = LOGITS.double().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda logits: shape(logits, Y, options), z)


def test_swap_moves_two_logits_where_the_teacher_errs() -> None:
    before = LOGITS.clone()
    after = corrected(LOGITS, Y)
    assert torch.equal(after, torch.tensor([[2.0, 1.0, -1.0], [0.5, 0.0, 3.0], [-1.0, 4.0, 2.0]]))
    assert torch.equal(LOGITS, before)


def loss(make: Make, name: str, **options: Any) -> Tensor:
    objective, step = make({"name": name, **options})
    return objective(step).loss.detach()


def errs(make: Make) -> Tensor:
    """Where the fixture's teacher is wrong about x."""
    _, step = make({"name": "ce"})
    return step.teacher.logits(step.batch.x).argmax(1) != step.batch.y


CLEAN = [name for name in STUDENTS if OBJECTIVES[name].teacher_sees.value == "clean"]


@pytest.mark.parametrize("name", CLEAN)
def test_down_weighting_changes_the_distillation_term_where_the_teacher_errs(name: str, make: Make) -> None:
    wrong = errs(make)
    assert 0 < wrong.sum() < len(wrong)
    full, half, none = (loss(make, name, when_wrong="down_weight", wrong_weight=weight) for weight in (1.0, 0.5, 0.0))
    assert torch.equal(full, loss(make, name))
    assert torch.equal(none[~wrong], full[~wrong])
    torch.testing.assert_close(half[wrong], (full + none)[wrong] / 2)
    torch.testing.assert_close(none[wrong], loss(make, name, weight=0.0)[wrong])


@pytest.mark.parametrize("name", CLEAN)
@pytest.mark.parametrize("options", [{"label_share": 0.5}, {"when_wrong": "swap"}])
def test_the_label_and_the_swap_reach_the_objective(name: str, options: dict[str, Any], make: Make) -> None:
    wrong, plain = errs(make), loss(make, name)
    moved = (loss(make, name, **options) - plain).abs()
    assert moved[wrong].mean() > 0.005
    if "when_wrong" in options and name == "kd":  # in the others, batch norm ties all x' together
        assert not moved[~wrong].any()


@pytest.mark.parametrize("name", sorted(set(STUDENTS) - set(CLEAN)))
def test_the_options_reach_the_objectives_that_see_more(name: str, make: Make) -> None:
    plain = loss(make, name)
    assert torch.equal(loss(make, name, when_wrong="down_weight", wrong_weight=1.0), plain)
    doubted = loss(make, name, when_wrong="down_weight", wrong_weight=0.0)
    assert (doubted <= plain + 1e-6).all() and (doubted < plain - 1e-3).any()
    assert (loss(make, name, label_share=0.5) - plain).abs().mean() > 1e-3


@pytest.mark.parametrize("name", CLEAN)
def test_known_logits_stand_for_the_teachers(name: str, make: Make) -> None:
    """And the teacher is not asked again: that pass is what they save."""
    objective, step = make({"name": name})
    known = step.teacher.logits(step.batch.x)
    live = objective(step).loss.detach()
    objective, step = make({"name": name}, batch=step.batch.with_context(teacher_logits=known))
    step.teacher.model.register_forward_hook(lambda *_: pytest.fail("the teacher was asked"))
    assert torch.equal(objective(step).loss.detach(), live)


@pytest.mark.parametrize("name", CLEAN)
def test_a_one_hot_target_needs_no_teacher_in_the_loss(name: str, make: Make) -> None:
    """label_share 1: KL(onehot ‖ S) = CE(S, y)."""
    options = {"label_share": 1.0, "weight": 1.0}
    if name == "logit_l1":
        assert torch.isfinite(loss(make, name, **options)).all()
        return
    objective, step = make({"name": name, **options})
    parts = objective(step)
    expected = sum(weight * parts.terms[term] for term, weight in CROSS_ENTROPIES[name].items())
    torch.testing.assert_close(parts.loss.detach(), expected)
    cross = torch.nn.functional.cross_entropy(parts.logits, step.batch.y, reduction="none")
    torch.testing.assert_close(parts.terms["kl" if name == "kd" else "kl_adv"], cross)


CROSS_ENTROPIES = {
    "kd": {"ce": 1, "kl": 1},
    "ard": {"kl_adv": 1},
    **{name: {"kl_adv": 5 / 6, "kl_clean": 1 / 6} for name in ("rslad", "absld")},
}
