"""Adversarial training (Madry et al. 2018, equation 2.1): L = CE(S(x'), y), x' = argmax CE(S(x'), y) in the ball.

Label smoothing (up to 0.2 helps, Pang et al. 2021) is of the outer label; the attack keeps y. Fast variants differ in
how x' is found and in nothing else, so they are subclasses.
"""

from __future__ import annotations

import torch.nn.functional as F

from robustdistill.objectives.smoothing import Smoothed
from robustdistill.objectives.types import Adversarial, Objective, Parts, Step


class PgdAT(Objective):
    """One outer pass, on x'. The inner attack starts anywhere in the ball."""

    name = "pgd_at"
    adversarial = True
    source = "Madry et al. 2018"
    formula = "CE(S(x'), y); x' maximises CE(S(x'), y)"
    cost = "student K+1 forward and backward"
    when = "the standard defence without a teacher, and the control of every comparison"

    class Config(Smoothed, Adversarial):
        pass

    def forward(self, step: Step) -> Parts:
        x_adv = self.adversary(step)
        logits = step.student(x_adv)
        loss = F.cross_entropy(logits, step.batch.y, reduction="none", label_smoothing=self.config.label_smoothing)
        return Parts(loss, {"ce_adv": loss.detach()}, logits.detach(), x_adv)
