"""What a distilling objective makes of the teacher's logits: the options that all of them share.

target = w · onehot(y) + (1 − w) · softmax(T / τ), after T's logits were put right where the teacher errs, if that is
chosen. Written as logits, so that there is one `kl` for all of it. Functions take logits [B, C] and labels [B], change
nothing in place and are differentiable in the logits (a teacher's input gradient passes through).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from robustdistill.config import Strict


class Distilled(Strict):
    """Options of every student. The teacher's logits are shaped in this order: swap, temperature, label."""

    weight: float = Field(default=1.0, ge=0, description="of the distillation term")
    teacher_temperature: float = Field(
        default=1.0, gt=0, description="divides the teacher's logits only: below 1 sharpens it, above 1 softens it"
    )
    label_share: float = Field(default=0.0, ge=0, le=1, description="of the true label in the target, the rest is T's")
    when_wrong: Literal["trust", "swap", "down_weight"] = Field(
        default="trust", description="where T errs; swap: its logit of the label and its largest change places"
    )
    wrong_weight: float = Field(
        default=0.5, ge=0, le=1, description="of the distillation term where T errs, with down_weight"
    )
    teacher_cache: Literal["auto", "never"] = Field(
        default="auto", description="T(x) computed once and kept on disk, where only T(x) is used and augment allows"
    )


def shape(logits: Tensor, y: Tensor, options: Distilled) -> Tensor:
    """The target as logits. By default they are the teacher's, bit for bit."""
    if options.when_wrong == "swap":
        logits = corrected(logits, y)
    softened = logits / options.teacher_temperature
    return mixed(softened, y, options.label_share) if options.label_share > 0 else softened


def corrected(logits: Tensor, y: Tensor) -> Tensor:
    """Logits in which those of y and of the largest class have changed places; the same ones where y is the largest."""
    label, top = y[:, None], logits.argmax(dim=1, keepdim=True)
    at_label, at_top = logits.gather(1, label), logits.gather(1, top)
    return logits.scatter(1, top, at_label).scatter(1, label, at_top)


def mixed(logits: Tensor, y: Tensor, share: float) -> Tensor:
    """Logits of share · onehot(y) + (1 − share) · softmax(logits), in float32 or better.

    Their log-sum-exp is that of `logits`, so a small share changes them little, whatever matches them. Probabilities of
    0 (share 1) come out as the least float that is normal, and no number is infinite.
    """
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    tiny = math.log(torch.finfo(wide.dtype).tiny)
    total = wide.logsumexp(dim=1, keepdim=True)
    rest = wide + (math.log1p(-share) if share < 1 else tiny)
    label = y[:, None]
    return rest.scatter(1, label, torch.logaddexp(rest.gather(1, label), total + max(math.log(share), tiny)))


def trusted(logits: Tensor, y: Tensor, options: Distilled) -> Tensor:
    """How much the distillation term of each example counts, [B]: wrong_weight or 1. logits: the teacher's own."""
    weights = torch.ones_like(y, dtype=torch.promote_types(logits.dtype, torch.float32))
    if options.when_wrong != "down_weight":
        return weights
    return weights.masked_fill(logits.argmax(dim=1) != y, options.wrong_weight)
