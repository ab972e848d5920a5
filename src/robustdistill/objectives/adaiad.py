"""AdaIAD (Huang et al. 2023): IAD's loss at AdaAD's attack, with the teacher asked at x' throughout.

L = w · (T² · KL(T(x')/T ‖ S(x')/T) + (1 − T_y(x')^β) · KL(S(x) ‖ S(x'))) + c · CE(S(x), y), β = 0.1, c = 0,
x' maximising KL(T(x') ‖ S(x')) through S and T. The second term begins at `begin`, 60 of 200 epochs.
"""

from __future__ import annotations

from pydantic import Field

from robustdistill.attacks.types import Goal
from robustdistill.objectives.iad import IAD
from robustdistill.objectives.moving import KLAdversarial, moving_goal
from robustdistill.objectives.types import Parts, Sees, Step


class AdaIAD(IAD):
    """One pass of the teacher over x' is target and guide. The attack knows no temperature, as published."""

    name = "adaiad"
    teacher_sees = Sees.GRADIENT
    source = "Huang et al. 2023"
    formula = "w·(T²·KL(T(x')/T‖S(x')/T) + (1−T_y(x')^β)·KL(S(x)‖S(x'))) + c·CE(S(x), y); x' maximises KL(T(x')‖S(x'))"
    cost = "student K+2 forward and backward (K+1 before `begin`); teacher K forward and backward, 1 forward"
    when = "as AdaAD, where the teacher errs under attack"

    class Config(KLAdversarial, IAD.Config):
        temperature: float = Field(
            default=1.0, gt=0, description="T: of both softmaxes of the teacher's term; the published code takes 30"
        )

    def moving_goal(self, step: Step) -> Goal:
        return moving_goal(self, step)

    def forward(self, step: Step) -> Parts:
        x_adv = self.adversary(step)
        guide = self.teacher_of(step).logits(x_adv)
        return self.introspected(step, x_adv, guide, guide if self.doubts(step) else None)
