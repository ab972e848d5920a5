"""Logit matching: L = CE(S(x'), y) + w · mean_k |S(x')_k − T(x)_k|, x' maximising CE(S(x'), y).

Matching logits (Ba and Caruana 2014) by their absolute difference, here under attack. The clean form takes x for x'.
"""

from __future__ import annotations

import torch.nn.functional as F
from pydantic import Field

from robustdistill.objectives.types import Adversarial, Distilled, Objective, Parts, Sees, Step


class LogitL1(Objective):
    """One outer pass, on x' (on x in the clean form). The mean over classes frees w of their number."""

    name = "logit_l1"
    needs_teacher = True
    adversarial = True
    teacher_sees = Sees.CLEAN
    source = "after Ba and Caruana 2014"
    formula = "CE(S(x'), y) + w·mean_k |S(x')_k − T(x)_k|; x' maximises CE(S(x'), y)"
    cost = "student K+1 forward and backward (1 in the clean form); teacher 1 forward"
    when = "scales of logits matter too, as for quantised or tiny students"

    class Config(Distilled, Adversarial):
        weight: float = Field(default=0.1, ge=0, description="of the mean absolute difference of logits")
        adversarial: bool = Field(default=True, description="false: the clean form, without an attack")

    def __init__(self, config: Config, *, where: str = "objective") -> None:
        super().__init__(config, where=where)
        self.adversarial = config.adversarial

    def forward(self, step: Step) -> Parts:
        target, weight = self.lesson(self.clean_logits(step), step.batch.y)
        x_adv = self.adversary(step) if self.adversarial else None
        logits = step.student(step.batch.x if x_adv is None else x_adv)
        ce = F.cross_entropy(logits, step.batch.y, reduction="none")
        l1 = (logits - target).abs().mean(dim=1)
        terms = {"ce_adv" if self.adversarial else "ce": ce.detach(), "l1": l1.detach()}
        return Parts(ce + weight * l1, terms, logits.detach(), x_adv)
