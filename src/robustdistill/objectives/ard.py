"""ARD (Goldblum et al. 2020): L = w · T² · KL(T(x)/T ‖ S(x')/T) + c · CE(S(x), y), x' maximising CE(S(x'), y).

The student answers under attack as the teacher does on the clean input.
"""

from __future__ import annotations

import torch.nn.functional as F
from pydantic import Field

from robustdistill.objectives.kl import kl
from robustdistill.objectives.types import Adversarial, Distilled, Objective, Parts, Sees, Step


class ARD(Objective):
    """The pass over x is only made if ce_weight > 0; then it comes first. The paper's α is w, its 1 − α is c; α = 1."""

    name = "ard"
    needs_teacher = True
    adversarial = True
    teacher_sees = Sees.CLEAN
    source = "Goldblum et al. 2020"
    formula = "w·T²·KL(T(x)/T‖S(x')/T) + c·CE(S(x), y); x' maximises CE(S(x'), y)"
    cost = "student K+1 forward and backward (K+2 if c > 0); teacher 1 forward"
    when = "the cheapest distillation under attack"

    class Config(Distilled, Adversarial):
        ce_weight: float = Field(default=0.0, ge=0, description="of CE(S(x), y), the label term on clean inputs")
        temperature: float = Field(
            default=1.0, gt=0, description="of both softmaxes; the published code takes 30, and averages over classes"
        )

    def forward(self, step: Step) -> Parts:
        target, weight = self.lesson(self.clean_logits(step), step.batch.y)
        x_adv = self.adversary(step)
        clean = step.student(step.batch.x) if self.config.ce_weight > 0 else None
        adversarial = step.student(x_adv)
        divergence = kl(target, adversarial, self.config.temperature)
        loss, terms = weight * divergence, {"kl_adv": divergence.detach()}
        if clean is not None:
            ce = F.cross_entropy(clean, step.batch.y, reduction="none")
            loss, terms["ce"] = loss + self.config.ce_weight * ce, ce.detach()
        return Parts(loss, terms, adversarial.detach(), x_adv)
