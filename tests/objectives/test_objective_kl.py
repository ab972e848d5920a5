"""One divergence, whose size depends on the distributions and on nothing else."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from robustdistill.objectives.kl import kl

logits = hnp.arrays("float64", (3, 5), elements=st.floats(-30, 30))
quick = settings(max_examples=50, deadline=None, derandomize=True)


def test_by_hand() -> None:
    p, q = torch.tensor([[0.25, 0.75]]).log(), torch.tensor([[0.5, 0.5]]).log()
    assert kl(p, q).item() == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5))
    assert kl(q, p).item() == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))  # the target comes first


@quick
@given(logits, logits, st.floats(0.2, 30))
def test_is_the_sum_over_classes_times_t_squared(p_in: object, q_in: object, temperature: float) -> None:
    z, w = torch.as_tensor(p_in), torch.as_tensor(q_in)
    p, q = torch.exp(z / temperature), torch.exp(w / temperature)
    p, q = p / p.sum(1, keepdim=True), q / q.sum(1, keepdim=True)
    expected = temperature**2 * (p * torch.log(p / q)).sum(1)
    assert torch.allclose(kl(z, w, temperature), expected, rtol=1e-6, atol=1e-9 * temperature**2)


@quick
@given(logits, logits, st.floats(-50, 50))
def test_is_a_divergence(p_in: object, q_in: object, shift: float) -> None:
    z, w = torch.as_tensor(p_in), torch.as_tensor(q_in)
    assert (kl(z, w) >= -1e-9).all()
    assert torch.allclose(kl(z, z + shift), torch.zeros(3, dtype=torch.float64), atol=1e-9)


@quick
@given(logits, logits, st.floats(0.5, 10))
def test_does_not_depend_on_how_many_classes_or_examples_there_are(p_in: object, q_in: object, t: float) -> None:
    """The mean over elements of published code would halve in both cases."""
    z, w = torch.as_tensor(p_in), torch.as_tensor(q_in)
    expected = kl(z, w, t)
    split = kl(torch.cat([z, z], 1), torch.cat([w, w], 1), t)  # each class cut into two equal halves
    assert torch.allclose(split, expected, rtol=1e-6, atol=1e-8)
    for impossible in (-1e4, float("-inf")):  # classes that neither model believes in
        nothing = torch.full((3, 7), impossible, dtype=torch.float64)
        assert torch.allclose(kl(torch.cat([z, nothing], 1), torch.cat([w, nothing], 1), t), expected)
    assert torch.equal(kl(z.repeat(2, 1), w.repeat(2, 1), t), expected.repeat(2))


def test_impossible_classes_give_finite_gradients() -> None:
    z = torch.tensor([[1.0, 2.0, float("-inf")]], requires_grad=True)
    w = torch.tensor([[2.0, 1.0, float("-inf")]], requires_grad=True)
    kl(z, w).sum().backward()
    assert torch.isfinite(z.grad).all() and torch.isfinite(w.grad).all()
    assert w.grad[0, :2].abs().min() > 0


def test_gradients_are_those_of_the_formula_in_both_arguments() -> None:
    """∂/∂w = T (q − p); ∂/∂z_j = T p_j (log p_j/q_j − KL/T²), the part that a detached target would lose."""
    t = 2.0
    z = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64, requires_grad=True)
    w = torch.tensor([[0.0, 1.0, 0.3]], dtype=torch.float64, requires_grad=True)
    value = kl(z, w, t)
    value.sum().backward()
    p, q = (z / t).softmax(1), (w / t).softmax(1)
    assert torch.allclose(w.grad, t * (q - p))
    assert torch.allclose(z.grad, t * p * (torch.log(p / q) - value / t**2))


def test_half_precision_logits_are_widened() -> None:
    z, w = torch.tensor([[3.0, 1.0, 0.0]]), torch.tensor([[2.0, 1.5, 0.0]])
    value = kl(z.bfloat16(), w.bfloat16())
    assert value.dtype == torch.float32 and value.item() == pytest.approx(kl(z, w).item(), rel=1e-6)
