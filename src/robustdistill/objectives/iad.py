"""IAD-I (Zhu et al. 2022): the student trusts the teacher as far as the teacher holds under the student's own attack.

L = w · (T² · KL(T(x)/T ‖ S(x')/T) + (1 − T_y(x')^β) · KL(S(x) ‖ S(x'))) + c · CE(S(x), y), β = 0.1, T = 1, c = 0,
x' maximising CE(S(x'), y). Before `begin` of the training, 60 of the paper's 200 epochs, the second term is left out.
"""

from __future__ import annotations

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from robustdistill.objectives.kl import kl
from robustdistill.objectives.types import Adversarial, Distilled, Objective, Parts, Sees, Step


class IAD(Objective):
    """T_y(x') is the teacher's own probability of the label, not the shaped one, and a constant. Both branches of the
    student's KL have a gradient, as in TRADES. The paper's α is w, its 1 − α is c. The pass over x comes first and is
    only made where a term needs it.
    """

    name = "iad"
    needs_teacher = True
    adversarial = True
    teacher_sees = Sees.ADVERSARIAL
    source = "Zhu et al. 2022"
    formula = "w·(T²·KL(T(x)/T‖S(x')/T) + (1−T_y(x')^β)·KL(S(x)‖S(x'))) + c·CE(S(x), y); x' maximises CE(S(x'), y)"
    cost = "student K+2 forward and backward, teacher 2 forward; before `begin` student K+1, teacher 1 forward"
    when = "the teacher is only partly reliable under attack"

    class Config(Distilled, Adversarial):
        ce_weight: float = Field(default=0.0, ge=0, description="c: of CE(S(x), y), the label term on clean inputs")
        temperature: float = Field(default=1.0, gt=0, description="T: of both softmaxes of the teacher's term")
        trust: float = Field(default=0.1, ge=0, description="β: the larger, the less a doubtful teacher is trusted")
        begin: float = Field(default=0.3, ge=0, le=1, description="share of the training after which doubt begins")

    def forward(self, step: Step) -> Parts:
        x_adv = self.adversary(step)
        guide = self.teacher_of(step).logits(x_adv) if self.doubts(step) else None
        return self.introspected(step, x_adv, self.clean_logits(step), guide)

    def doubts(self, step: Step) -> bool:
        begin: float = self.config.begin
        return step.progress >= begin

    def introspected(self, step: Step, x_adv: Tensor, known: Tensor, guide: Tensor | None) -> Parts:
        """known: what S(x') shall be like. guide: T(x'), None before `begin`. Both logits [B, C] without a graph."""
        y, ce_weight = step.batch.y, self.config.ce_weight
        target, weight = self.lesson(known, y)
        clean = step.student(step.batch.x) if guide is not None or ce_weight > 0 else None
        adversarial = step.student(x_adv)
        divergence = kl(target, adversarial, self.config.temperature)
        loss, terms = weight * divergence, {"kl_adv": divergence.detach()}
        if clean is not None and guide is not None:
            own = kl(clean, adversarial)  # clean is not detached
            doubt = 1 - (self.config.trust * -F.cross_entropy(guide, y, reduction="none")).exp()
            loss = loss + weight * doubt * own
            terms |= {"kl_own": own.detach(), "doubt": doubt}
        if clean is not None and ce_weight > 0:
            ce = F.cross_entropy(clean, y, reduction="none")
            loss, terms["ce"] = loss + ce_weight * ce, ce.detach()
        return Parts(loss, terms, adversarial.detach(), x_adv)
