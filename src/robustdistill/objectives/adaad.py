"""AdaAD (Huang et al. 2023): the teacher answers at the attacked point, where the attack has chosen to disagree.

L = w · (a · KL(T(x') ‖ S(x')) + (1 − a) · KL(T(x) ‖ S(x))), a = 1,
x' maximising KL(T(x') ‖ S(x')) from x + 0.001 N(0, 1), through S and T.
"""

from __future__ import annotations

from pydantic import Field

from robustdistill.attacks.types import Goal
from robustdistill.objectives.kl import kl
from robustdistill.objectives.moving import KLAdversarial, moving_goal
from robustdistill.objectives.types import Distilled, Objective, Parts, Sees, Step


class AdaAD(Objective):
    """Both passes of the teacher are targets: constants. The pass over x is only made if a < 1; then it comes first.

    The published code averages the KL over classes on CIFAR-10 and sums it on CIFAR-100; here it is the sum.
    """

    name = "adaad"
    needs_teacher = True
    adversarial = True
    teacher_sees = Sees.GRADIENT
    source = "Huang et al. 2023"
    formula = "w·(a·KL(T(x')‖S(x')) + (1−a)·KL(T(x)‖S(x))); x' maximises KL(T(x')‖S(x'))"
    cost = "student K+1 forward and backward (K+2 if a < 1); teacher K forward and backward, 1 forward (2 if a < 1)"
    when = "the teacher is robust and small enough to be attacked along with the student"

    class Config(Distilled, KLAdversarial):
        adversarial_share: float = Field(default=1.0, ge=0, le=1, description="a: share of the KL under attack")

    def moving_goal(self, step: Step) -> Goal:
        return moving_goal(self, step)

    def forward(self, step: Step) -> Parts:
        share, y = self.config.adversarial_share, step.batch.y
        x_adv = self.adversary(step)
        target, weight = self.lesson(self.teacher_of(step).logits(x_adv), y)
        clean = step.student(step.batch.x) if share < 1 else None
        adversarial = step.student(x_adv)
        kl_adv = kl(target, adversarial)
        loss, terms = share * weight * kl_adv, {"kl_adv": kl_adv.detach()}
        if clean is not None:
            target, weight = self.lesson(self.clean_logits(step), y)
            kl_clean = kl(target, clean)
            loss, terms["kl_clean"] = loss + (1 - share) * weight * kl_clean, kl_clean.detach()
        return Parts(loss, terms, adversarial.detach(), x_adv)
