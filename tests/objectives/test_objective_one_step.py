"""FGSM-RS and N-FGSM: adversarial training in all but the inner attack, which is written out anew here."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustdistill import objectives
from robustdistill.errors import BadInput
from robustdistill.objectives import Objective, Step
from robustdistill.rng import seeded
from robustdistill.threat import ThreatModel

Make = Callable[..., tuple[Objective, Step]]


def slope(student: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """∇ CE(S(x), y) of a copy in evaluation mode, in float64."""
    x = x.double().requires_grad_(True)
    loss = F.cross_entropy(copy.deepcopy(student).eval().double()(x), y, reduction="sum")
    return torch.autograd.grad(loss, x)[0]


def agree(ours: Tensor, theirs: Tensor) -> None:
    """Rounding may flip a sign near 0."""
    assert torch.isclose(ours.double(), theirs, atol=1e-5).double().mean() > 0.99


def test_fgsm_rs_takes_one_long_step_from_anywhere_and_is_brought_back(make: Make) -> None:
    objective, step = make({"name": "fgsm_rs"})
    x, y, index = step.batch.x, step.batch.y, step.batch.index
    begin = (x + 0.1 * (2 * step.draws.uniform(x, index, "fgsm") - 1)).clamp(0, 1)
    moved = begin.double() + 0.125 * slope(step.student, begin, y).sign()
    expected = torch.minimum(torch.maximum(moved, x - 0.1), x + 0.1).clamp(0, 1)
    agree(objective(step).x_adv, expected)


@pytest.mark.parametrize(("noise", "size"), [(2.0, 1.0), (3.0, 1.25)])
def test_n_fgsm_is_clamped_to_the_box_and_to_nothing_else(noise: float, size: float, make: Make) -> None:
    objective, step = make({"name": "n_fgsm", "noise": noise, "step": size})
    x, y, index = step.batch.x, step.batch.y, step.batch.index
    noisy = (x + noise * 0.1 * (2 * step.draws.uniform(x, index, "n_fgsm") - 1)).clamp(0, 1)
    expected = (noisy.double() + size * 0.1 * slope(step.student, noisy, y).sign()).clamp(0, 1)
    x_adv = objective(step).x_adv
    agree(x_adv, expected)
    far = (x_adv - x).abs()
    assert (noise + size) * 0.1 * 0.9 < far.max() < (noise + size) * 0.1 + 1e-6
    assert (far > 0.1).float().mean() > 0.4 and x_adv.min() >= 0 and x_adv.max() <= 1


def test_n_fgsm_in_l2_goes_along_the_gradient_from_noise_in_the_ball(make: Make) -> None:
    objective, step = make({"name": "n_fgsm"}, threat=ThreatModel("l2", 0.2, low=-5.0, high=5.0))
    x, y, index = step.batch.x, step.batch.y, step.batch.index
    normal = step.draws.normal(x, index, "n_fgsm").double()
    radius = 0.4 * step.draws.uniform(x.new_empty(32, 1), index, "n_fgsm/radius").double() ** (1 / 12)
    noisy = x.double() + normal * (radius / normal.flatten(1).norm(dim=1, keepdim=True))[..., None]
    grad = slope(step.student, noisy, y)
    expected = noisy + 0.2 * grad / grad.flatten(1).norm(dim=1)[:, None, None]
    x_adv = objective(step).x_adv
    assert torch.allclose(x_adv.double(), expected, atol=1e-5)
    lengths = (x_adv - x).flatten(1).norm(dim=1)
    assert 0.3 < lengths.max() < 0.6 + 1e-6


def test_the_noise_is_of_todays_eps_and_epoch_and_of_each_example(make: Make) -> None:
    objective, step = make({"name": "n_fgsm", "step": 1e-6})
    noise = objective(step).x_adv - step.batch.x
    inside = (step.batch.x - 0.5).abs() < 0.29  # where the box is out of reach
    small = objective(replace(step, threat=step.threat.scaled(0.25))).x_adv - step.batch.x
    assert torch.allclose(small[inside], 0.25 * noise[inside], atol=1e-5)
    other = objective(replace(step, draws=step.draws.at(3))).x_adv - step.batch.x
    assert not torch.allclose(other, noise, atol=1e-2)
    flipped = step.batch._replace(x=step.batch.x.flip(0), index=step.batch.index.flip(0))
    assert torch.allclose(objective(replace(step, batch=flipped)).x_adv.flip(0) - step.batch.x, noise, atol=1e-5)


@pytest.mark.parametrize("name", ["fgsm_rs", "n_fgsm"])
def test_a_step_asks_for_one_gradient_and_one_outer_pass(name: str, make: Make) -> None:
    objective, step = make({"name": name})
    passes: list[bool] = []
    step.student.register_forward_hook(lambda module, inputs, output: passes.append(module.training))
    objective(step)
    assert passes == [False, True]
    objective(replace(step, x_adv=step.batch.x))  # a known x' costs nothing
    assert passes == [False, True, True]


@pytest.mark.parametrize("name", ["pgd_at", "fgsm_rs", "n_fgsm"])
def test_the_attack_keeps_the_hard_label(name: str, make: Make) -> None:
    hard, soft = (
        objective(step) for objective, step in (make({"name": name, "label_smoothing": share}) for share in (0.0, 0.2))
    )
    assert torch.equal(hard.x_adv, soft.x_adv) and not torch.allclose(hard.loss, soft.loss)


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("name", ["pgd_at", "fgsm_rs", "n_fgsm"])
def test_the_smoothed_loss_for_any_number_of_classes(name: str, classes: int, make: Make) -> None:
    objective, step = make({"name": name, "label_smoothing": 0.3})
    with seeded("smoothed", classes):
        student = nn.Sequential(nn.Flatten(), nn.Linear(12, classes))
    y = step.batch.index % classes
    parts = objective(replace(step, student=student, batch=step.batch._replace(y=y)))
    log_p = copy.deepcopy(student).double()(parts.x_adv.double()).log_softmax(1)
    label = 0.7 * F.one_hot(y, classes) + 0.3 / classes
    assert torch.allclose(parts.loss.double(), -(label * log_p).sum(1), rtol=1e-5)


def test_the_attack_of_fgsm_rs_is_an_option_and_that_of_n_fgsm_two_numbers() -> None:
    assert objectives.build({"name": "fgsm_rs"}).config.attack == {
        "name": "fgsm",
        "step": 1.25,
        "start": "uniform",
        "goal": "ce",
    }
    built: Any = objectives.build({"name": "fgsm_rs", "attack": {"step": 1.0}}).attack
    assert (built.config.step, built.config.start) == (1.0, "uniform")
    with pytest.raises(BadInput, match="unknown key 'attack'"):
        objectives.build({"name": "n_fgsm", "attack": {"name": "pgd"}})
    with pytest.raises(BadInput, match="'noise' must be greater than 0"):
        objectives.build({"name": "n_fgsm", "noise": 0.0})
