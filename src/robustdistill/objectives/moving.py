"""The inner attack whose target moves: x' = argmax KL(T(x') ‖ S(x')) in the ball (AdaAD, Huang et al. 2023).

The gradient runs through the student and through the teacher. With the teacher under no_grad the attack maximises
something else, at the same value of the loss: a bug of public code.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from robustdistill.attacks.types import Batch, Goal
from robustdistill.config import Spec
from robustdistill.objectives.kl import kl
from robustdistill.objectives.types import Adversarial, Objective, Step


class KLAdversarial(Adversarial):
    """Options of an objective whose inner attack moves away from the teacher, from x + 0.001 N(0, 1)."""

    attack: Spec = Field(
        default={"name": "pgd", "steps": 10, "step": 0.25, "start": "gaussian", "goal": "kl"},
        description="the inner attack; `kl` moves away from the teacher",
        validate_default=True,
    )


def moving_goal(objective: Objective, step: Step) -> Goal:
    """KL(T(x') ‖ S(x')), [B]. Costs a forward and a backward pass of the teacher at each step of the attack."""
    teacher = objective.teacher_of(step)

    def goal(logits: Tensor, batch: Batch) -> Tensor:
        return kl(objective.shaped(teacher.logits_with_input_grad(batch.x), batch.y), logits)

    return goal
