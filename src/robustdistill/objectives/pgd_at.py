"""Adversarial training (Madry et al. 2018, equation 2.1): L = CE(S(x'), y), x' = argmax CE(S(x'), y) in the ball."""

from __future__ import annotations

import torch.nn.functional as F

from robustdistill.objectives.types import Adversarial, Objective, Parts, Step


class PgdAT(Objective):
    """One outer pass, on x'. The inner attack starts anywhere in the ball."""

    name = "pgd_at"
    adversarial = True

    class Config(Adversarial):
        pass

    def forward(self, step: Step) -> Parts:
        x_adv = self.adversary(step)
        logits = step.student(x_adv)
        loss = F.cross_entropy(logits, step.batch.y, reduction="none")
        return Parts(loss, {"ce_adv": loss.detach()}, logits.detach(), x_adv)
