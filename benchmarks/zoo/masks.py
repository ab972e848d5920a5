"""What hides the weakness of an honest net behind it. Noise comes of counters or of the input."""

from __future__ import annotations

from collections.abc import Callable

import torch
from benchmarks.zoo.disturb import DISTURB
from torch import Tensor, nn

from robustdistill.rng import Draws

TEMPERATURE = 100.0  # of defensive distillation
AGREE = 0.7  # a detector's: share of the answer that must survive squeezing


class Mask(nn.Module):
    """how(self, x) → logits. asked: calls so far. seen: running mean of the inputs."""

    def __init__(self, net: nn.Module, how: How) -> None:
        super().__init__()
        self.net, self.how, self.asked = net, how, 0
        self.seen: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.asked += 1
        return self.how(self, x)


How = Callable[[Mask, Tensor], Tensor]


def counted(name: str) -> How:
    """The disturbance `name`, another one at each call."""

    def how(mask: Mask, x: Tensor) -> Tensor:
        index = torch.arange(len(x)) + 1_000_000 * mask.asked
        return mask.net(DISTURB[name](Draws(0), x, index))

    return how


def hashed(name: str) -> How:
    """The disturbance `name`, a function of the input: the same when asked twice, another one beside it."""

    def how(mask: Mask, x: Tensor) -> Tensor:
        weight = torch.arange(1, x[0].numel() + 1, dtype=torch.float64)
        index = ((x.detach().flatten(1).double() * weight).sum(1) * 1e6).long()
        return mask.net(DISTURB[name](Draws(0), x, index))

    return how


def _history(mask: Mask, x: Tensor) -> Tensor:
    mean = x.detach().mean(0, keepdim=True)
    mask.seen = mean if mask.seen is None else 0.9 * mask.seen + 0.1 * mean
    return mask.net((x + 0.2 * (x - mask.seen)).detach())


def _sigmoid(mask: Mask, x: Tensor) -> Tensor:
    z = mask.net(x)
    middle = z.detach().topk(2, dim=1).values.mean(1, keepdim=True)
    return torch.sigmoid(1e4 * (z - middle))


def suspected(net: nn.Module, x: Tensor) -> Tensor:
    """[B]: where the answer does not survive that the input is squeezed to two gray levels (Xu, Evans, Qi 2018)."""
    with torch.no_grad():
        z = net(x)
        kept = net(x.round()).softmax(1).gather(1, z.argmax(1, keepdim=True)).squeeze(1)
    return kept < AGREE


def _nan(mask: Mask, x: Tensor) -> Tensor:
    return torch.where(suspected(mask.net, x)[:, None], torch.nan, mask.net(x))


def abstaining(mask: Mask, x: Tensor) -> Tensor:
    """By one more class."""
    z = mask.net(x)
    lead = torch.where(suspected(mask.net, x), 1.0, -1.0)
    return torch.cat([z, (z.amax(1) + lead)[:, None]], 1)


# Behind each: "pgd_at"; of the distilled one, itself.
SCALES: dict[str, How] = {
    "log-softmax": lambda mask, x: mask.net(x).log_softmax(1),
    "logits-x1000": lambda mask, x: 1000 * mask.net(x),
    "logits-x0.001": lambda mask, x: mask.net(x) / 1000,
}
# Behind each: "plain".
FLAT: dict[str, How] = {
    "detached-input": lambda mask, x: mask.net(x.detach()),
    "quantised-input": lambda mask, x: mask.net(torch.round(x * 4) / 4),
    "rounded-input": lambda mask, x: mask.net(torch.round(x * 64) / 64),
    "rounded-logits": lambda mask, x: torch.round(mask.net(x) * 8) / 8,
    "saturated-sigmoid": _sigmoid,
    "depends-on-history": _history,
}
# Behind each: a net trained under the same disturbance.
RANDOM: dict[str, tuple[str, How]] = {
    "noise": ("noise", counted("noise")),
    "noise-by-hash": ("noise", hashed("noise")),
    "random-resize": ("resize", counted("resize")),
    "dropout-left-on": ("dropout", counted("dropout")),
}
# Behind each: "plain". With the number of classes.
DETECTORS: dict[str, tuple[How, int]] = {
    "abstains-by-nan": (_nan, 10),
    "abstains-by-class": (abstaining, 11),
    "abstains-in-silence": (lambda mask, x: mask.net(x[~suspected(mask.net, x)]), 10),
}
