"""A recurrent classifier: it reads an image row by row through a gated recurrent unit (Cho et al. 2014).

The cell is written out. The fused kernels of CUDA's library give no input gradient in evaluation mode, which is the
mode that models are attacked in, and they keep their own list of weights, which an attack twin could not share.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from robustdistill.config import Strict
from robustdistill.models.images import require_image


class GRU(nn.Module):
    """One layer over the rows from the top, then linear from the last state. No batch norm, no dropout.

    With u_t the row [C · W] and h_0 = 0: r, z = σ(A u_t + B h_{t−1}), n = tanh(A_n u_t + r ⊙ (B_n h_{t−1})),
    h_t = (1 − z) ⊙ n + z ⊙ h_{t−1}; each map has a bias.
    """

    name = "gru"

    class Config(Strict):
        hidden: int = Field(default=64, ge=4, le=1024, description="numbers in the state that is carried along")

    def __init__(self, config: Config, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        channels, _, width = require_image(self.name, shape, least=2)
        self.rows = nn.Linear(channels * width, 3 * config.hidden)
        self.state = nn.Linear(config.hidden, 3 * config.hidden)
        self.head = nn.Linear(config.hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.rows(x.transpose(1, 2).flatten(2))  # [B, H, 3 · hidden]: all rows at once, they do not depend on h
        h = torch.zeros_like(rows[:, 0, : self.state.in_features])
        for row in rows.unbind(1):
            h = self._cell(row, h)
        logits: Tensor = self.head(h)
        return logits

    def _cell(self, row: Tensor, h: Tensor) -> Tensor:
        from_r, from_z, from_n = row.chunk(3, dim=1)
        to_r, to_z, to_n = self.state(h).chunk(3, dim=1)
        z = torch.sigmoid(from_z + to_z)
        n = torch.tanh(from_n + torch.sigmoid(from_r + to_r) * to_n)
        return n + z * (h - n)
