"""LBGAT (Cui et al. 2021): a naturally trained guide G learns beside the student and lends it its logits.

L = mean_k (S(x')_k − G(x)_k)² + CE(G(x), y) + β · KL(S(x) ‖ S(x')), x' maximising KL(S(x) ‖ S(x')).
"""

from __future__ import annotations

import torch.nn.functional as F
from pydantic import Field

from robustdistill.config import Spec
from robustdistill.objectives.companion import Accompanied, Companionship
from robustdistill.objectives.kl import kl
from robustdistill.objectives.types import Adversarial, Parts, Step


class LBGAT(Companionship):
    """The square reaches both models, which is what makes the boundary learnable: a detached G is the paper's BGAT.

    As in TRADES nothing of the KL is detached. The student's pass over x is left out if β = 0, the paper's other form.
    """

    name = "lbgat"
    adversarial = True
    source = "Cui et al. 2021"
    formula = "mean (S(x') − G(x))² + CE(G(x), y) + β·KL(S(x)‖S(x')); x' maximises KL(S(x)‖S(x'))"
    cost = "student K+2 forward and backward (K+1 if β = 0); guide 1 forward and backward"
    when = "no strong teacher at hand and clean accuracy matters"

    class Config(Accompanied, Adversarial):
        beta: float = Field(default=6.0, ge=0, description="of the KL term; the paper compares 0 and 6")
        attack: Spec = Field(
            default={"name": "pgd", "steps": 10, "step": 0.25, "start": "gaussian", "goal": "kl"},
            description="the inner attack; `kl` moves away from S(x)",
            validate_default=True,
        )

    def forward(self, step: Step) -> Parts:
        x_adv = self.adversary(step)
        clean = step.student(step.batch.x) if self.config.beta > 0 else None
        adversarial = step.student(x_adv)
        guide = self.companion(step.batch.x)
        square = (adversarial - guide).square().mean(dim=1)
        ce = F.cross_entropy(guide, step.batch.y, reduction="none")
        loss, terms = square + ce, {"square": square.detach(), "ce_guide": ce.detach()}
        if clean is not None:
            divergence = kl(clean, adversarial)
            loss, terms["kl"] = loss + self.config.beta * divergence, divergence.detach()
        return Parts(loss, terms, adversarial.detach(), x_adv)
