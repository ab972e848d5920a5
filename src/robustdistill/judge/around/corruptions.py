"""Accuracy on images spoilt by chance, not by an attacker: 8 kinds in 5 severities, in the spirit of Hendrycks and
Dietterich (2019). The severities are this project's own, so its figures are no CIFAR-C figures.

A kind is a function of (u, strength, noise): images u [B, C, H, W] in [0, 1]; noise(tag) draws N(0, 1) of u's shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from robustdistill.attacks import Batch
from robustdistill.judge.subject import Subject
from robustdistill.rng import Draws

Noise = Callable[[str], Tensor]
Kind = Callable[[Tensor, float, Noise], Tensor]


def gaussian_noise(u: Tensor, deviation: float, noise: Noise) -> Tensor:
    return u + deviation * noise("gaussian")


def shot_noise(u: Tensor, photons: float, noise: Noise) -> Tensor:
    """Counts at `photons` for white; Poisson's law by the normal one of the same mean and variance."""
    return u + (u / photons).sqrt() * noise("shot")


def impulse_noise(u: Tensor, share: float, noise: Noise) -> Tensor:
    """This share of the values becomes 0 or 1, one as likely as the other."""
    hit = torch.special.ndtr(noise("impulse/where")) < share
    return torch.where(hit, (noise("impulse/value") > 0).to(u.dtype), u)


def blur(u: Tensor, deviation: float, noise: Noise) -> Tensor:
    """A Gaussian of deviation · √edge pixels (0.4 to 1.2 on 8, 2 to 6 on 224); the border is repeated."""
    sigma = deviation * math.sqrt(min(u.shape[2:]))
    reach = max(1, math.ceil(3 * sigma))
    at = torch.arange(-reach, reach + 1, dtype=u.dtype, device=u.device)
    line = torch.exp(-(at**2) / (2 * sigma**2))
    line = (line / line.sum()).repeat(u.shape[1], 1)
    padded = F.pad(u, (reach, reach, reach, reach), mode="replicate")
    rows = F.conv2d(padded, line[:, None, :, None], groups=u.shape[1])
    return F.conv2d(rows, line[:, None, None, :], groups=u.shape[1])


def brightness(u: Tensor, added: float, noise: Noise) -> Tensor:
    return u + added


def contrast(u: Tensor, kept: float, noise: Noise) -> Tensor:
    mean = u.mean((1, 2, 3), keepdim=True)
    return mean + kept * (u - mean)


def pixelate(u: Tensor, kept: float, noise: Noise) -> Tensor:
    """Averaged to this share of each edge, shown at the old size."""
    height, width = (max(1, round(kept * edge)) for edge in u.shape[2:])
    return F.interpolate(F.adaptive_avg_pool2d(u, (height, width)), size=u.shape[2:], mode="nearest")


def shift(u: Tensor, way: float, noise: Noise) -> Tensor:
    """By this share of the edges into a random direction, between pixels if need be; what comes in is the border."""
    step = F.normalize(noise("shift").flatten(1)[:, :2], dim=1) * 2 * way  # the grid spans [−1, 1]
    turn = torch.eye(2, dtype=u.dtype, device=u.device).expand(len(u), 2, 2)
    grid = F.affine_grid(torch.cat([turn, step[:, :, None]], 2), list(u.shape), align_corners=False)
    return F.grid_sample(u, grid, padding_mode="border", align_corners=False)


KINDS: dict[Kind, tuple[float, float, float, float, float]] = {
    gaussian_noise: (0.04, 0.08, 0.12, 0.18, 0.26),
    shot_noise: (60, 25, 12, 6, 3),
    impulse_noise: (0.01, 0.03, 0.06, 0.12, 0.2),
    blur: (0.14, 0.2, 0.26, 0.33, 0.42),
    brightness: (0.1, 0.2, 0.3, 0.4, 0.5),
    contrast: (0.75, 0.6, 0.45, 0.3, 0.2),
    pixelate: (0.85, 0.7, 0.55, 0.4, 0.3),
    shift: (0.02, 0.04, 0.08, 0.12, 0.16),
}


def corrupt(kind: Kind, severity: int, batch: Batch, draws: Draws, low: float, high: float) -> Tensor:
    """batch.x in [low, high], spoilt with severity 1 to 5: a function of the seed and each example's id."""
    u = (batch.x - low) / (high - low)
    spoilt = kind(u, KINDS[kind][severity - 1], lambda tag: draws.normal(u, batch.index, f"{tag}/{severity}"))
    return low + spoilt.clamp(0, 1) * (high - low)


def block(subject: Subject, batch: Batch, draws: Draws) -> dict[str, Any]:
    """Accuracy by kind for severities 1 to 5, and the mean of all; of n examples."""
    rows = {
        kind.__name__: [
            float(subject.reply(corrupt(kind, level, batch, draws, subject.low, subject.high), batch.y).right.mean())
            for level in range(1, 6)
        ]
        for kind in KINDS
    }
    return {"n": len(batch.y), "mean": sum(map(sum, rows.values())) / (5 * len(rows)), "kinds": rows}
