"""Does the student answer as its teacher does, and still so under attack?"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from robustdistill.attacks.kl import kl
from robustdistill.gate.statistics import wilson
from robustdistill.judge.subject import BATCH
from robustdistill.judge.trial import Trial


def agreement(trial: Trial, teacher: nn.Module) -> dict[str, Any]:
    """JSON blocks "clean" and "attacked" (the worst inputs found for the student), of n examples each.

    same: the share on which both name one class, with Wilson's 95 % interval. kl: mean KL(teacher ‖ student) of their
    softmax, in nats; None if it is no number. teacher: logits [B, C] of inputs [B, *shape], in evaluation mode.
    """
    n = len(trial.sample)
    return {"n": n, "clean": _block(trial, teacher, trial.sample.x), "attacked": _block(trial, teacher, trial.worst)}


def _block(trial: Trial, teacher: nn.Module, x: Tensor) -> dict[str, float | None]:
    with torch.no_grad():
        theirs = torch.cat([teacher(part) for part in torch.split(x, BATCH)])
    ours = trial.subject.logits(x)
    same = int((ours.argmax(1) == theirs.argmax(1)).sum())
    lower, upper = wilson(same, len(x))
    mean = float(kl(theirs, ours).mean())
    kept = round(mean, 6) if math.isfinite(mean) else None
    return {"same": same / len(x), "lower": lower, "upper": upper, "kl": kept}
