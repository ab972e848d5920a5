"""How one model follows another as its moving average."""

from __future__ import annotations

import torch
from torch import nn


class Follower:
    """average ← d · average + (1 − d) · model in place, statistics included; whole numbers are copied.

    The tensors are looked up once (that costs more than the arithmetic): both models must stay where they are.
    """

    def __init__(self, average: nn.Module, model: nn.Module) -> None:
        pairs = list(zip(average.state_dict().values(), model.state_dict().values(), strict=True))
        self._ours = [ours for ours, _ in pairs if ours.is_floating_point()]
        self._theirs = [theirs for ours, theirs in pairs if ours.is_floating_point()]
        self._counts = [(ours, theirs) for ours, theirs in pairs if not ours.is_floating_point()]

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        torch._foreach_lerp_(self._ours, self._theirs, 1.0 - decay)
        for ours, theirs in self._counts:
            ours.copy_(theirs)
