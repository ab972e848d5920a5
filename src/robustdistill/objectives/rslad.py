"""RSLAD (Zi et al. 2021): robust soft labels of the teacher everywhere a hard label would stand.

L = w · (a · KL(T(x) ‖ S(x')) + (1 − a) · KL(T(x) ‖ S(x))) + c · CE(S(x'), y), a = 5/6, c = 0,
x' maximising KL(T(x) ‖ S(x')) from x + 0.001 N(0, 1).
"""

from __future__ import annotations

import torch.nn.functional as F
from pydantic import Field

from robustdistill.config import Spec
from robustdistill.objectives.kl import kl
from robustdistill.objectives.types import Adversarial, Distilled, Objective, Parts, Sees, Step


class RSLAD(Objective):
    """Two outer passes: x, then x'; the one over x is left out if a = 1. One teacher pass, on x, serves all terms."""

    name = "rslad"
    needs_teacher = True
    adversarial = True
    teacher_sees = Sees.CLEAN
    source = "Zi et al. 2021"
    formula = "w·(a·KL(T(x)‖S(x')) + (1−a)·KL(T(x)‖S(x))) + c·CE(S(x'), y); x' maximises KL(T(x)‖S(x'))"
    cost = "student K+2 forward and backward (K+1 if a = 1); teacher 1 forward"
    when = "robust soft labels at the cost of one teacher pass; what `fashion_mnist` uses"

    class Config(Distilled, Adversarial):
        adversarial_share: float = Field(default=5 / 6, ge=0, le=1, description="a: share of the KL under attack")
        ce_weight: float = Field(default=0.0, ge=0, description="c: of CE(S(x'), y); the paper has none")
        attack: Spec = Field(
            default={"name": "pgd", "steps": 10, "step": 0.25, "start": "gaussian", "goal": "kl"},
            description="the inner attack; `kl` moves away from T(x)",
            validate_default=True,
        )

    def forward(self, step: Step) -> Parts:
        share = self.config.adversarial_share
        target, weight = self.lesson(self.clean_logits(step), step.batch.y)
        x_adv = self.adversary(step, reference=target)
        clean = step.student(step.batch.x) if share < 1 else None
        adversarial = step.student(x_adv)
        kl_adv = kl(target, adversarial)
        mixed, terms = share * kl_adv, {"kl_adv": kl_adv.detach()}
        if clean is not None:
            kl_clean = kl(target, clean)
            mixed, terms["kl_clean"] = mixed + (1 - share) * kl_clean, kl_clean.detach()
        loss = weight * mixed
        if self.config.ce_weight > 0:
            ce = F.cross_entropy(adversarial, step.batch.y, reduction="none")
            loss, terms["ce_adv"] = loss + self.config.ce_weight * ce, ce.detach()
        return Parts(loss, terms, adversarial.detach(), x_adv)
