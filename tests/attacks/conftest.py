"""Toy models whose worst case is known on paper."""

from __future__ import annotations

import pytest
import torch
from attack_toys import Linear
from torch import nn

from robustdistill.attacks import Batch
from robustdistill.rng import Draws, seeded


@pytest.fixture
def linear() -> nn.Module:
    """6 features, 2 classes, weights without zeros and of very different size."""
    w = torch.tensor([0.5, -2.0, 0.01, 1.0, -0.3, 4.0])
    return Linear(torch.stack([w, -w], dim=1))


@pytest.fixture
def small_net() -> nn.Module:
    """Conv, batch norm with statistics of its own, dropout: everything that training mode changes."""
    with seeded("attacks", "small_net"):
        net = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.SiLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(4 * 16, 3)
        )
        net(Draws(7).uniform(torch.empty(32, 1, 6, 6), torch.arange(32), "warm"))  # non-trivial running statistics
    return net.eval()


@pytest.fixture
def images() -> Batch:
    """16 examples of [1, 6, 6] in [0, 1]."""
    index = torch.arange(16) + 10**12
    x = Draws(1).uniform(torch.empty(16, 1, 6, 6), index, "x")
    return Batch(x, torch.arange(16) % 3, index)


@pytest.fixture
def points() -> Batch:
    """12 examples of [6] far enough from the walls of [0, 1] that eps 0.1 meets none."""
    index = torch.arange(12)
    x = 0.3 + 0.4 * Draws(2).uniform(torch.empty(12, 6), index, "x")
    return Batch(x, torch.arange(12) % 2, index)
