"""Adversarial weight perturbation (AWP; Wu, Xia, Wang 2020): min_w max_v L(w + v), ‖v‖ ≤ γ ‖w‖ in each tensor.

One step of ascent in each weight tensor: v = γ · ‖w‖ · g / ‖g‖, g = ∇_w L(w). The update of w takes the gradient of
L(w + v): a flat minimum costs little, a sharp one much. Published: γ = 0.01 for pgd_at, 0.005 for trades, the latter
after a twentieth of the training. Matrices and filters only; biases and norms stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from robustdistill.objectives.types import Objective, Parts, Step


@contextmanager
def worst_weights(
    gamma: float, evaluate: Callable[[Step], Parts], step: Step, objective: Objective
) -> Iterator[tuple[Parts, Tensor]]:
    """(parts at w, the loss at w + v): inside, take the gradient; after it, w is bit-equal to before.

    x' is found once, at w. All state (batch-norm statistics, buffers of the objective) is moved by the second
    evaluation alone. γ = 0: the loss at w, evaluated once. Else one more evaluation of the outer passes, forward and
    backward, than the objective's own cost. `weight_decay` acts on w; in the published code it acts on w + v.
    """
    if gamma == 0:
        parts = evaluate(step)
        yield parts, parts.loss.mean()
        return
    weights = [weight for weight in step.student.parameters() if weight.requires_grad and weight.dim() > 1]
    with _still(step.student, objective):
        parts = evaluate(step)
        grads = torch.autograd.grad(parts.loss.mean(), weights, allow_unused=True)
    kept = [weight.detach().clone() for weight in weights]
    try:
        _perturb(gamma, weights, grads)
        yield parts, evaluate(replace(step, x_adv=parts.x_adv)).loss.mean()
    finally:
        with torch.no_grad():
            for weight, before in zip(weights, kept, strict=True):
                weight.copy_(before)


@torch.no_grad()
def _perturb(gamma: float, weights: list[nn.Parameter], grads: tuple[Tensor | None, ...]) -> None:
    """w ← w + γ · ‖w‖ · g / ‖g‖; a tensor without gradient stays."""
    for weight, grad in zip(weights, grads, strict=True):
        if grad is not None:
            size = grad.norm().clamp_min(torch.finfo(grad.dtype).tiny)
            weight.add_(grad * (gamma * weight.norm() / size))


@contextmanager
def _still(*modules: nn.Module) -> Iterator[None]:
    """Afterwards every buffer is the tensor that it was, with the values that it had."""
    owners = [(each._buffers, dict(each._buffers)) for module in modules for each in module.modules()]
    values = [(tensor, tensor.clone()) for _, known in owners for tensor in known.values() if tensor is not None]
    try:
        yield
    finally:
        for buffers, known in owners:
            buffers.update(known)
        for tensor, value in values:
            tensor.copy_(value)
