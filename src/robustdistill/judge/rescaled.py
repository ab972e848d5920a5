"""Logits of an unusual size, brought to an ordinary one for the attacks.

Dividing all logits by a constant changes no verdict, but a softmax of logits in the thousands underflows and cross
entropy loses its gradient (defensive distillation at high temperature: Carlini and Wagner 2017, section VI).
"""

from __future__ import annotations

import copy
from contextlib import suppress

import torch
from torch import Tensor, nn

ORDINARY = (0.05, 60.0)  # median lead of the first class over the second: beyond 60 float32 softmax nears underflow
USUAL = 4.0  # the lead that the attacks then see


class Rescaled(nn.Module):
    """logits [B, C] of `inner`, divided by `scale`."""

    def __init__(self, inner: nn.Module, scale: float) -> None:
        super().__init__()
        self.inner, self.scale = inner, scale
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.inner(x)
        return logits / self.scale


def scale_of(logits: Tensor) -> float:
    """By what to divide logits [B, C] before an attack; 1 where their size is ordinary or cannot be told."""
    first, second = logits.double().topk(2, dim=1).values.unbind(1)
    lead = first - second
    lead = lead[torch.isfinite(lead) & (lead > 0)]
    if not len(lead):
        return 1.0
    median = float(lead.median())
    return 1.0 if ORDINARY[0] <= median <= ORDINARY[1] else median / USUAL


def copied(model: nn.Module) -> nn.Module | None:
    """A copy with all its state; None of what cannot be copied, such as a session of another runtime."""
    with suppress(Exception):  # a user's module, whose parts may be anything
        return copy.deepcopy(model).eval()
    return None
