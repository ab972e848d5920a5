"""TRADES (Zhang et al. 2019, equation 5): L = CE(S(x), y) + β · KL(S(x) ‖ S(x')), x' maximising that KL.

The gradient flows through both branches of the KL. Detaching S(x) gives the same loss value and another, worse method.
"""

from __future__ import annotations

import torch.nn.functional as F
from pydantic import Field

from robustdistill.config import Spec
from robustdistill.objectives.kl import kl
from robustdistill.objectives.types import Adversarial, Objective, Parts, Step


class Trades(Objective):
    """Two outer passes: x, then x'. The inner attack begins at x + 0.001 N(0, 1) and sees S in evaluation mode."""

    name = "trades"
    adversarial = True
    source = "Zhang et al. 2019"
    formula = "CE(S(x), y) + β·KL(S(x)‖S(x')); x' maximises KL(S(x)‖S(x'))"
    cost = "student K+3 forward, K+2 backward"
    when = "β sets how much accuracy is paid for robustness; ahead of pgd_at in long published trainings"

    class Config(Adversarial):
        beta: float = Field(default=6.0, ge=0, description="of the KL term; larger is more robust and less accurate")
        attack: Spec = Field(
            default={"name": "pgd", "steps": 10, "step": 0.25, "start": "gaussian", "goal": "kl"},
            description="the inner attack; `kl` moves away from S(x), whose gradient is 0 at x itself",
            validate_default=True,
        )

    def forward(self, step: Step) -> Parts:
        x_adv = self.adversary(step)
        clean = step.student(step.batch.x)
        adversarial = step.student(x_adv)
        ce = F.cross_entropy(clean, step.batch.y, reduction="none")
        divergence = kl(clean, adversarial)  # clean is not detached
        terms = {"ce": ce.detach(), "kl": divergence.detach()}
        return Parts(ce + self.config.beta * divergence, terms, adversarial.detach(), x_adv)
