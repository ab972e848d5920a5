"""What hides the weakness of an honest net behind it. Noise comes of counters or of the input."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustdistill.rng import Draws

NOISE = 0.3  # standard deviation, on inputs in [0, 1]


class Mask(nn.Module):
    """how(self, x) → logits. asked: calls so far. seen: running mean of the inputs."""

    def __init__(self, net: nn.Module, how: Callable[[Mask, Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.how, self.asked = net, how, 0
        self.seen: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.asked += 1
        return self.how(self, x)


def _noisy(mask: Mask, x: Tensor) -> Tensor:
    index = torch.arange(len(x)) + 1_000_000 * mask.asked
    return mask.net(x + NOISE * Draws(0).normal(x, index, "zoo"))


def _hashed(mask: Mask, x: Tensor) -> Tensor:
    weight = torch.arange(1, x[0].numel() + 1, dtype=torch.float64)
    index = ((x.detach().flatten(1).double() * weight).sum(1) * 1e6).long()
    return mask.net(x + NOISE * Draws(0).normal(x, index, "zoo"))


def _resized(mask: Mask, x: Tensor) -> Tensor:
    size = x.shape[-1] - mask.asked * 7919 % 4
    small = F.interpolate(x, size=(size, size), mode="bilinear", antialias=False)
    room = x.shape[-1] - size
    left, top = mask.asked * 104729 % (room + 1), mask.asked * 1299709 % (room + 1)
    return mask.net(F.pad(small, (left, room - left, top, room - top)))


def _dropout(mask: Mask, x: Tensor) -> Tensor:
    index = torch.arange(len(x)) + 1_000_000 * mask.asked
    return mask.net(x * (Draws(0).uniform(x, index, "zoo") > 0.3) / 0.7)


def _history(mask: Mask, x: Tensor) -> Tensor:
    mean = x.detach().mean(0, keepdim=True)
    mask.seen = mean if mask.seen is None else 0.9 * mask.seen + 0.1 * mean
    return mask.net((x + 0.2 * (x - mask.seen)).detach())


def _sigmoid(mask: Mask, x: Tensor) -> Tensor:
    z = mask.net(x)
    middle = z.detach().topk(2, dim=1).values.mean(1, keepdim=True)
    return torch.sigmoid(1e4 * (z - middle))


SCALES: dict[str, Callable[[Mask, Tensor], Tensor]] = {
    "log-softmax": lambda mask, x: mask.net(x).log_softmax(1),
    "logits-x1000": lambda mask, x: 1000 * mask.net(x),
    "logits-x0.001": lambda mask, x: mask.net(x) / 1000,
}
RANDOM: dict[str, Callable[[Mask, Tensor], Tensor]] = {
    "noise": _noisy, "noise-by-hash": _hashed, "random-resize": _resized, "dropout-left-on": _dropout,
}  # fmt: skip
MASKS = (
    SCALES
    | {
        "detached-input": lambda mask, x: mask.net(x.detach()),
        "quantised-input": lambda mask, x: mask.net(torch.round(x * 4) / 4),
        "rounded-input": lambda mask, x: mask.net(torch.round(x * 64) / 64),
        "rounded-logits": lambda mask, x: torch.round(mask.net(x) * 8) / 8,
        "saturated-sigmoid": _sigmoid,
        "depends-on-history": _history,
    }
    | RANDOM
)
