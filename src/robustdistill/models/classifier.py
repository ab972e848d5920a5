"""A classifier of raw inputs: normalisation is its first layer, so that eps keeps the units of the input."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustdistill.models.spec import ModelSpec


class Classifier(nn.Module):
    """logits = net((x − mean) / std). The spec holds mean and std; they are no weights and are not stored as such."""

    mean: Tensor
    std: Tensor

    def __init__(self, spec: ModelSpec, net: nn.Module) -> None:
        super().__init__()
        self.spec = spec
        self.net = net
        view = (1, -1, *[1] * (len(spec.shape) - 1))
        self.register_buffer("mean", torch.tensor(spec.mean).view(view), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(view), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, *shape] in [low, high]. Returns logits [B, C]."""
        if x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)  # convolutions run faster on it, and equal on all calls
        logits: Tensor = self.net((x - self.mean) / self.std)
        return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits  # losses want more digits
