"""Three convolutions and one or two linear layers: the student for small hardware, and the whole demo.

The last feature map is averaged to a 4 × 4 grid, so a size has about the same number of parameters on every input.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from robustdistill.config import Strict
from robustdistill.models.images import require_image

GRID = 4
# Channels of the convolutions, then those of the hidden linear layer (0: none). Most of tiny's parameters lie in the
# linear layer, where each costs one multiplication: a third of the time of a purely convolutional network as large.
WIDTHS = {"nano": (10, 20, 24, 0), "micro": (16, 32, 44, 0), "tiny": (24, 48, 64, 196)}


class SmallCNN(nn.Module):
    """(conv 3 × 3 – batch norm – ReLU) × 3, average to 4 × 4, linear (– ReLU – linear). Inputs of 8 × 8 or more."""

    name = "small_cnn"

    class Config(Strict):
        size: Literal["nano", "micro", "tiny"] = Field(
            default="micro", description="nano, micro, tiny: about 10k, 25k, 240k parameters"
        )

    def __init__(self, config: Config, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        channels, *edges = require_image(self.name, shape, least=8)
        *widths, hidden = WIDTHS[config.size]
        layers: list[nn.Module] = []
        for width, stride in zip(widths, strides(min(edges)), strict=True):
            layers += [nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            channels, edges = width, [-(-edge // stride) for edge in edges]
        self.features = nn.Sequential(*layers)
        self.pool = grid_pool(edges)
        self.head = head(channels * GRID * GRID, hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.pool(self.features(x)).flatten(1))
        return logits


def head(features: int, hidden: int, classes: int) -> nn.Module:
    if not hidden:
        return nn.Linear(features, classes)
    return nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, classes))


def strides(edge: int) -> tuple[int, int, int]:
    """Halve as often as leaves 4 pixels, late layers first on small images and at most three times."""
    halvings = max(n for n in range(4) if -(-edge // 2**n) >= GRID)
    return ((1, 1, 1), (1, 2, 1), (1, 2, 2), (2, 2, 2))[halvings]


def grid_pool(edges: list[int]) -> nn.Module:
    """Averages a map of these edges to GRID × GRID: adaptive pooling with fixed windows, which every format exports."""
    step = [edge // GRID for edge in edges]
    window = [edge - (GRID - 1) * stride for edge, stride in zip(edges, step, strict=True)]
    if window == [1, 1]:
        return nn.Identity()
    return nn.AvgPool2d((window[0], window[1]), (step[0], step[1]))
