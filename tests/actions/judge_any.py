"""A model of the user's own, whose robustness is known, and images for it: class k is block k of four, brighter."""

from __future__ import annotations

from pathlib import Path

import numpy as np

CLASSES, EDGE = 4, 8
MODULE = '''
import numpy as np
import torch
from torch import nn

class Blocks(nn.Module):
    """Mean of each quarter, times 10; odd versions of it by name."""

    def __init__(self, odd=""):
        super().__init__()
        self.odd = odd
        self.scale = nn.Parameter(torch.tensor(10.0))

    def forward(self, x):
        assert x.dim() == 4 and x.dtype == torch.float32
        if self.odd == "rounded":
            x = torch.round(x * 20) / 20
        pooled = nn.functional.avg_pool2d(x.mean(1, keepdim=True), 4).flatten(1)
        logits = pooled * self.scale
        if self.odd == "nan":
            logits = logits * torch.nan
        if self.odd == "flat":
            logits = logits.flatten()
        if self.odd == "one":
            logits = logits[:, :1]
        if self.odd == "three":
            logits = logits[:, :3]
        if self.odd == "five":
            logits = torch.cat([logits, logits[:, :1] - 99], dim=1)
        if self.odd == "text":
            return "cat"
        if self.odd == "numpy":
            return logits.detach().numpy()
        return logits

def load():
    print("loading")  # must not end in the JSON
    return Blocks()

def rounded(): return Blocks("rounded")
def nan(): return Blocks("nan")
def flat(): return Blocks("flat")
def one(): return Blocks("one")
def three(): return Blocks("three")
def five(): return Blocks("five")
def text(): return Blocks("text")
def as_numpy(): return Blocks("numpy")
def wrong_size(): return nn.Sequential(nn.Flatten(), nn.Linear(7, 4))
def returns_dict(): return {"model": 1}
def raises(): return np.zeros(3)[5]
instance = Blocks()
number = 3

class Factories:
    load = staticmethod(load)
'''


def margins(n: int) -> np.ndarray:
    """How much brighter each image's own block is: 0.0125 up to 0.6, none at a limit that matters."""
    return np.linspace(0.0125, 0.6, n)


def images(n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """float32 [n, EDGE, EDGE] in [0, 1], all different, and labels [n]."""
    x, y = np.full((n, EDGE, EDGE), 0.2, np.float32), np.arange(n) % CLASSES
    for image, label, margin in zip(x, y, margins(n), strict=True):
        row, column = 4 * (label // 2), 4 * (label % 2)
        image[row : row + 4, column : column + 4] += margin
    return x, y


def write_module(folder: Path, name: str) -> None:
    (folder / f"{name}.py").write_text(MODULE)
