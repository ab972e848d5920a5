"""How one model follows another as its moving average."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, decay: float) -> None:
    """average ← decay · average + (1 − decay) · model in place, statistics included; whole numbers are copied."""
    ours, theirs = list(average.state_dict().values()), list(model.state_dict().values())
    torch._foreach_lerp_(_floats(ours), _floats(theirs), 1.0 - decay)
    for one, other in zip(ours, theirs, strict=True):
        if not one.is_floating_point():
            one.copy_(other)


def _floats(tensors: list[Tensor]) -> list[Tensor]:
    return [tensor for tensor in tensors if tensor.is_floating_point()]
