"""DGAD (Park and Min 2024): an example is distilled clean or attacked, and the teacher's errors are put right.

L = w · (KL(T~(x) ‖ S(x)) where T errs at x, else KL(T~(x') ‖ S(x'))) + β · mean_k (S_k(x') − S_k(x))², β = 1,
S_k a probability, T~ = T with the logits of y and of the largest class swapped where T errs there,
x' maximising KL(T(x') ‖ S(x')) through S and T (AdaAD's attack, T as it is).
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from robustdistill.attacks.types import Goal
from robustdistill.objectives.kl import kl
from robustdistill.objectives.moving import KLAdversarial, moving_goal
from robustdistill.objectives.target import corrected
from robustdistill.objectives.types import Distilled, Objective, Parts, Sees, Step


class DGAD(Objective):
    """Two outer passes: x, then x'. The mean over classes is the published one, for which β = 1 was found.

    The paper averages each part over its own examples and weighs it by their share n / B of the batch. That is the
    mean of the losses given here; no part is divided by its own size, so a batch in which the teacher is wrong about
    all or none is one like any other, and examples do not depend on each other.
    """

    name = "dgad"
    needs_teacher = True
    adversarial = True
    teacher_sees = Sees.GRADIENT
    source = "Park and Min 2024"
    formula = (
        "w·(T errs at x: KL(T~(x)‖S(x)), else KL(T~(x')‖S(x'))) + β·MSE(S(x'), S(x)); x' maximises KL(T(x')‖S(x'))"
    )
    cost = "student K+2 forward and backward; teacher K forward and backward, 2 forward"
    when = "the teacher errs on clean examples of the training data"

    class Config(Distilled, KLAdversarial):
        consistency: float = Field(default=1.0, ge=0, description="β: of the mean squared difference of probabilities")

    def moving_goal(self, step: Step) -> Goal:
        return moving_goal(self, step)

    def forward(self, step: Step) -> Parts:
        teacher, y = self.teacher_of(step), step.batch.y
        x_adv = self.adversary(step)
        at_x, at_x_adv = teacher.logits(step.batch.x), teacher.logits(x_adv)
        clean, adversarial = step.student(step.batch.x), step.student(x_adv)
        kl_clean = kl(self.shaped(corrected(at_x, y), y), clean)
        kl_adv = kl(self.shaped(corrected(at_x_adv, y), y), adversarial)
        wrong = at_x.argmax(dim=1) != y
        mse = (_probabilities(adversarial) - _probabilities(clean)).square().mean(dim=1)
        taught = torch.where(wrong, self.trust(at_x, y) * kl_clean, self.trust(at_x_adv, y) * kl_adv)
        loss = taught + self.config.consistency * mse
        terms = {"kl_adv": kl_adv.detach(), "kl_clean": kl_clean.detach(), "mse": mse.detach(), "wrong": wrong.float()}
        return Parts(loss, terms, adversarial.detach(), x_adv)


def _probabilities(logits: Tensor) -> Tensor:
    return logits.softmax(dim=1, dtype=torch.promote_types(logits.dtype, torch.float32))
