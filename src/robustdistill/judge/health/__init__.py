"""Can this evaluation be trusted? Checks after Carlini et al. (2019), "On evaluating adversarial robustness", and
Croce and Hein (2020). A robust accuracy is an upper bound; these are the known signs that it is a loose one.

An error forbids any decision on the figures, a warning is shown beside them.
"""

from __future__ import annotations

from robustdistill.attacks import Access
from robustdistill.judge.curve import Curve
from robustdistill.judge.health import blind, gradients, larger, protocol
from robustdistill.judge.health.check import Check
from robustdistill.judge.health.forward import forward
from robustdistill.judge.trial import Trial

__all__ = ["Check", "checks"]


def checks(trial: Trial, curve: Curve) -> list[Check]:
    """All checks that the attacks of this trial allow, in a fixed order."""
    asked = list(forward(trial))
    if trial.subject.access < Access.GRADIENT:
        last = protocol.last_word(trial)
        return [*asked, protocol.access(trial), protocol.inside(trial), blind.noise(trial), *last]
    return [
        *asked,
        protocol.scale(trial),
        gradients.flat(trial),
        *gradients.iterative(trial),
        larger.monotone(curve),
        larger.overwhelmed(curve, trial.subject.classes),
        protocol.inside(trial),
        *blind.unseen(trial),
        blind.patient(trial),
        *protocol.last_word(trial),
        *protocol.origin(trial),
    ]
