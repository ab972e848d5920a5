"""Augmentation as a function of (seed, epoch, example): small shifts and mirror images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from robustdistill.rng import Draws

EDGE_PER_PIXEL = 14  # one pixel of shift for each 14 of the edge: 2 on 28 x 28


def augment(x: Tensor, index: Tensor, draws: Draws, kinds: Sequence[str], fill: float) -> Tensor:
    """x: [B, C, H, W]. What moves in from outside has the value `fill`. Equal index and draws move x equally."""
    if "shift" in kinds:
        x = shift(x, index, draws, fill)
    if "flip" in kinds:
        x = torch.where(mirrored(index, draws)[:, None, None, None], x.flip(3), x)
    return x


def mirrored(index: Tensor, draws: Draws) -> Tensor:
    """[B] bool: which examples `augment` with "flip" mirrors."""
    return draws.uniform(torch.empty(len(index), 1, device=index.device), index, "augment/flip")[:, 0] < 0.5


def shift(x: Tensor, index: Tensor, draws: Draws, fill: float) -> Tensor:
    """By whole pixels, up to 1/14 of the edge (at least 1) in each of four directions, each distance equally likely."""
    edges = x.shape[2:]
    reach = [max(1, round(edge / EDGE_PER_PIXEL)) for edge in edges]
    padded = F.pad(x, (reach[1], reach[1], reach[0], reach[0]), value=fill)
    u = draws.uniform(x.new_empty(len(x), 2), index, "augment/shift")
    rows, columns = (
        torch.arange(edge, device=x.device) + (u[:, axis] * (2 * reach[axis] + 1)).long()[:, None]
        for axis, edge in enumerate(edges)
    )  # [B, H], [B, W]
    example = torch.arange(len(x), device=x.device)[:, None, None]
    return padded.movedim(1, 3)[example, rows[:, :, None], columns[:, None, :]].movedim(3, 1)
