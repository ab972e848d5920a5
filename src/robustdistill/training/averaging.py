"""Exponential moving average of weights, batch-norm statistics included: wider optima, less robust overfitting."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from robustdistill.models.classifier import Classifier


class Average:
    """avg ← d · avg + (1 − d) · weights, with d = min(decay, (1 + n) / (10 + n)) so that early steps are forgotten."""

    def __init__(self, model: Classifier, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._ours, self._theirs = _floats(self.model), _floats(model)
        self._our_counts, self._their_counts = _counts(self.model), _counts(model)

    @torch.no_grad()
    def update(self, step: int) -> None:
        decay = min(self.decay, (1.0 + step) / (10.0 + step))
        torch._foreach_lerp_(self._ours, self._theirs, 1.0 - decay)
        for ours, theirs in zip(self._our_counts, self._their_counts, strict=True):
            ours.copy_(theirs)


def _floats(model: nn.Module) -> list[Tensor]:
    return [tensor for tensor in model.state_dict(keep_vars=False).values() if tensor.is_floating_point()]


def _counts(model: nn.Module) -> list[Tensor]:
    return [tensor for tensor in model.state_dict(keep_vars=False).values() if not tensor.is_floating_point()]
