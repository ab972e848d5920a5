"""MART (Wang et al. 2020): adversarial training that leans on the examples the student gets wrong.

L = CE(S(x'), y) − log(1 − max_{k≠y} p_k(x')) + λ · KL(S(x) ‖ S(x')) · (1 − p_y(x)), λ = 5, p = softmax(S),
x' maximising CE(S(x'), y) from x + 0.001 N(0, 1). The first two terms are the paper's BCE.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from robustdistill.config import Spec
from robustdistill.objectives.kl import kl
from robustdistill.objectives.types import Adversarial, Objective, Parts, Step


class MART(Objective):
    """Two outer passes: x, then x'. Nothing is detached: the gradient flows through both branches of the KL and
    through its weight. No label smoothing: the margin and the weight are about the one true class."""

    name = "mart"
    adversarial = True
    source = "Wang et al. 2020"
    formula = "CE(S(x'), y) − log(1 − max_{k≠y} p_k(x')) + λ·KL(S(x)‖S(x'))·(1 − p_y(x)); x' maximises CE(S(x'), y)"
    cost = "student K+2 forward and backward"
    when = "robustness counts for more than accuracy; what it gains over pgd_at shrinks under AutoAttack"

    class Config(Adversarial):
        weight: float = Field(default=5.0, ge=0, description="λ of the KL term; larger is more robust, less accurate")
        attack: Spec = Field(
            default={"name": "pgd", "steps": 10, "step": 0.25, "start": "gaussian", "goal": "ce"},
            description=Adversarial.model_fields["attack"].description,
            validate_default=True,
        )

    def forward(self, step: Step) -> Parts:
        y = step.batch.y
        x_adv = self.adversary(step)
        clean = step.student(step.batch.x)
        adversarial = step.student(x_adv)
        bce = F.cross_entropy(adversarial, y, reduction="none") - log_not_runner_up(adversarial, y)
        doubt = 1 - clean.softmax(dim=1).gather(1, y[:, None]).squeeze(1)
        divergence = kl(clean, adversarial)  # clean is not detached
        terms = {"bce_adv": bce.detach(), "kl": divergence.detach(), "doubt": doubt.detach()}
        return Parts(bce + self.config.weight * divergence * doubt, terms, adversarial.detach(), x_adv)


def log_not_runner_up(logits: Tensor, y: Tensor) -> Tensor:
    """log(1 − max_{k≠y} p_k) [B], as the log of the sum of all other classes: finite where that p_k rounds to 1."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=1)
    runner_up = wide.detach().scatter(1, y[:, None], float("-inf")).argmax(dim=1, keepdim=True)
    return wide.scatter(1, runner_up, float("-inf")).logsumexp(dim=1)
