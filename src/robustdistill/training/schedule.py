"""Learning rate, eps and γ of AWP as functions of the step alone: a resumed run needs no memory of them."""

from __future__ import annotations

import math

from robustdistill.config import Training
from robustdistill.threat import ThreatModel


def learning_rate(training: Training, step: int, total: int) -> float:
    """lr of step 0 ≤ step < total: linear from 0 to the peak, then to 0 in a line (one_cycle) or half a cosine."""
    peak_at = training.warmup * total
    if step < peak_at:
        return training.lr * (step + 1) / (peak_at + 1)
    left = (total - step) / max(total - peak_at, 1.0)  # 1 at the peak, above 0 at the last step
    left = min(left, 1.0)
    if training.schedule == "cosine":
        return training.lr * 0.5 * (1.0 - math.cos(math.pi * left))
    return training.lr * left


def threat_at(training: Training, threat: ThreatModel, step: int, total: int) -> ThreatModel:
    """The threat with eps rising in a line over the first `eps_warmup` of all steps. Large eps from step 0 on can
    leave a network at chance (the loss stays at log C); see alarms.py."""
    rise = training.eps_warmup * total
    return threat if step + 1 >= rise else threat.scaled((step + 1) / rise)


def gamma_at(training: Training, step: int, total: int) -> float:
    """γ of the weight perturbation (awp.py): 0 in the first `awp_warmup` of all steps."""
    return training.awp if step >= training.awp_warmup * total else 0.0
