"""What randomised models do to their inputs: (draws, x [B, C, H, W], index [B]) → x, another one for each index."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from robustdistill.rng import Draws

NOISE = 0.5  # standard deviation, on inputs in [0, 1]
DROPPED = 0.5  # share of the pixels
SMALLEST = 0.5  # share of the edge that a resized image keeps


def noise(draws: Draws, x: Tensor, index: Tensor) -> Tensor:
    return x + NOISE * draws.normal(x, index, "zoo")


def dropout(draws: Draws, x: Tensor, index: Tensor) -> Tensor:
    return x * (draws.uniform(x, index, "zoo") >= DROPPED) / (1 - DROPPED)


def resize(draws: Draws, x: Tensor, index: Tensor) -> Tensor:
    """Width and height shrink each by itself, and the image is put anywhere on black (Xie et al. 2018)."""
    drawn = draws.uniform(x.new_empty(len(x), 4), index, "zoo")
    size = SMALLEST + (1 - SMALLEST) * drawn[:, :2]
    shift = (1 - size) * (2 * drawn[:, 2:] - 1)
    theta = torch.cat([torch.diag_embed(1 / size), (-shift / size)[:, :, None]], 2)
    return F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)


DISTURB: dict[str, Callable[[Draws, Tensor, Tensor], Tensor]] = {
    "noise": noise, "dropout": dropout, "resize": resize,
}  # fmt: skip
