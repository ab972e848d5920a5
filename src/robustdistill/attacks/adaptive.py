"""Targets for models that hide their gradient: any attack becomes an adaptive one by what it is run against.

Athalye, Carlini, Wagner (2018): noise is averaged away (EOT), a step without a derivative is given another one (BPDA).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustdistill.attacks.types import Access, Batch, Goal, Target, attack_mode


class ExpectedTarget:
    """A randomised target as its expectation over `samples` forward passes (section 4.2, EOT).

    The expectation is taken of the logits, so a goal sees one model and is asked once: gradient = mean over fresh
    samples of J_zᵀ · ∂goal/∂E[z]. For a goal linear in the logits (margin) it is that of the expected goal; CE differs
    from the expected CE by Jensen's gap. Each pass draws anew, as the model does: one after the other, since a model
    may draw one transformation for the whole batch. A gradient costs 2 · samples forward and `samples` backward passes.
    """

    def __init__(self, target: Target, samples: int) -> None:
        """samples: at least 1."""
        if samples < 1:
            raise ValueError(f"an expectation over {samples} samples")
        self.target, self.samples = target, samples

    @property
    def access(self) -> Access:
        return self.target.access

    def predict(self, x: Tensor) -> Tensor:
        return self.logits(x).argmax(dim=1)

    def logits(self, x: Tensor) -> Tensor:
        total = self.target.logits(x)
        for _ in range(self.samples - 1):
            total = total + self.target.logits(x)
        return total / self.samples

    def gradient(self, batch: Batch, goal: Goal) -> Tensor:
        with torch.enable_grad():
            logits = self.logits(batch.x).requires_grad_(True)
            weight = torch.autograd.grad(goal(logits, batch).sum(), logits)[0]

        def along(sample: Tensor, _: Batch) -> Tensor:
            return (sample * weight).sum(dim=1)

        total = torch.zeros_like(batch.x)
        for _ in range(self.samples):
            total += self.target.gradient(batch, along)
        return total / self.samples


class StraightThroughTarget:
    """Answers of one model, derivatives of another (section 4.1, BPDA): z = b(x) + stop(f(x) − b(x)).

    model_forward, f: the model that is judged, such as one that quantises its input. model_backward, b: the same model
    with that step replaced by one that has a derivative, or left out. Both map x [B, *shape] to logits [B, C].
    """

    access = Access.GRADIENT

    def __init__(self, model_forward: nn.Module, model_backward: nn.Module) -> None:
        self.model_forward, self.model_backward = model_forward, model_backward

    def predict(self, x: Tensor) -> Tensor:
        return self.logits(x).argmax(dim=1)

    def logits(self, x: Tensor) -> Tensor:
        with attack_mode(self.model_forward), torch.no_grad():
            logits: Tensor = self.model_forward(x)
        return logits

    def gradient(self, batch: Batch, goal: Goal) -> Tensor:
        answer = self.logits(batch.x)
        with attack_mode(self.model_backward), torch.enable_grad():
            x = batch.x.detach().requires_grad_(True)
            smooth = self.model_backward(x)
            logits = smooth + (answer - smooth).detach()
            return torch.autograd.grad(goal(logits, batch._replace(x=x)).sum(), x)[0]
