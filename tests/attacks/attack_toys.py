"""A model whose worst case is known on paper."""

from __future__ import annotations

from torch import Tensor, nn


class Linear(nn.Module):
    """z = x · W, with W fixed: the margin of two classes is linear in x."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight
