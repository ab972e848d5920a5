"""What is driven up, on numbers that can be checked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from robustdistill.attacks import Batch
from robustdistill.attacks.goals import GOALS, TARGETED, cross_entropy, is_wrong, likely_wrong, margin
from robustdistill.attacks.kl import kl
from robustdistill.errors import BadInput

Z = torch.tensor([[math.log(1), math.log(3)], [2.0, -1.0], [0.0, 0.0]])
BATCH = Batch(torch.zeros(3, 1), torch.tensor([0, 0, 1]), torch.arange(3))


def test_cross_entropy_by_hand() -> None:
    expected = [math.log(4), math.log(1 + math.exp(-3)), math.log(2)]
    assert cross_entropy(Z, BATCH).tolist() == pytest.approx(expected)


def test_margin_by_hand_and_its_gradient_is_of_one_pair() -> None:
    z = torch.tensor([[1.0, 4.0, 2.0], [5.0, 4.5, 4.5]], requires_grad=True)
    value = margin(z, Batch(torch.zeros(2, 1), torch.tensor([0, 0]), torch.arange(2)))
    assert value.tolist() == [3.0, -0.5]
    value.sum().backward()
    assert z.grad[0].tolist() == [-1, 1, 0]
    assert sorted(z.grad[1].tolist()) == [-1, 0, 1]  # a tie goes to one class, not to half of each


def test_the_kl_goal_by_hand() -> None:
    teacher = torch.tensor([[0.0, math.log(3)]] * 3)
    # KL((1/4, 3/4) ‖ q) for q = (1/4, 3/4) and q = (1/2, 1/2)
    expected = [0.0, 0.25 * math.log(0.5) + 0.75 * math.log(1.5)]
    values = GOALS["kl"](Z, BATCH.with_context(reference=teacher))
    assert values[[0, 2]].tolist() == pytest.approx(expected, abs=1e-7)
    assert torch.equal(values, kl(teacher, Z))
    with pytest.raises(ValueError, match="reference"):
        GOALS["kl"](Z, BATCH)


def test_dlr_by_hand() -> None:
    z = torch.tensor([[5.0, 1.0, 3.0, 2.0], [1.0, 2.0, 4.0, 0.0]])
    batch = Batch(torch.zeros(2, 1), torch.tensor([0, 1]), torch.arange(2)).with_context(target=torch.tensor([1, 0]))
    assert GOALS["dlr"](z, batch).tolist() == pytest.approx([(3 - 5) / (5 - 2), (4 - 2) / (4 - 1)])
    assert TARGETED["targeted-margin"](z, batch).tolist() == [-4.0, -1.0]
    expected = [(1 - 5) / (5 - (2 + 1) / 2), (1 - 2) / (4 - (1 + 0) / 2)]
    assert TARGETED["targeted-dlr"](z, batch).tolist() == pytest.approx(expected)
    for goal in (GOALS["dlr"], TARGETED["targeted-dlr"]):
        assert torch.allclose(goal(1000 * z - 7, batch), goal(z, batch))  # blind to scale and shift
    assert likely_wrong(z, batch.y, 2).tolist() == [[2, 3], [2, 0]]
    assert likely_wrong(z, batch.y, 9).shape == (2, 3)


@pytest.mark.parametrize(("name", "classes", "instead"), [("dlr", 2, "margin"), ("targeted-dlr", 3, "targeted-margin")])
def test_too_few_classes_are_a_sentence(name: str, classes: int, instead: str) -> None:
    batch = Batch(torch.zeros(1, 1), torch.tensor([0]), torch.arange(1)).with_context(target=torch.tensor([1]))
    with pytest.raises(BadInput, match=f"(?s)needs at least {classes + 1} classes.*goal: {instead}"):
        (GOALS | TARGETED)[name](torch.zeros(1, classes), batch)


def test_nan_counts_as_wrong() -> None:
    z = torch.tensor([[1.0, 0.0], [0.0, 1.0], [float("nan"), 1.0], [1.0, float("nan")]])
    assert is_wrong(z, torch.tensor([0, 0, 0, 1])).tolist() == [False, True, True, True]
