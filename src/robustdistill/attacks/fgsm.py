"""The fast gradient sign method (Goodfellow, Shlens, Szegedy 2015): one step of steepest ascent.

With start "uniform" and step 1.25 it is FGSM-RS (Wong, Rice, Kolter 2020). In the L2 norm the step goes along the
gradient itself.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from robustdistill.attacks.attack import Attack
from robustdistill.attacks.ball import Ball
from robustdistill.attacks.goals import GoalName
from robustdistill.attacks.types import Access, Batch, Goal, Target
from robustdistill.config import Strict
from robustdistill.rng import Draws


class FGSM(Attack):
    """x' = project(x₀ + step · eps · direction(∇ goal(x₀)))."""

    name = "fgsm"
    needs = Access.GRADIENT

    class Config(Strict):
        step: float = Field(default=1.0, gt=0, description="length of the step, in eps; 1.25 with a uniform start")
        start: Literal["uniform", "gaussian", "none"] = Field(default="none", description="where the step begins")
        goal: GoalName = Field(default="ce", description="what is driven up")

    def search(
        self, target: Target, batch: Batch, ball: Ball, draws: Draws, goal: Goal, start: Tensor | None
    ) -> Tensor:
        x = batch.x
        begin = ball.start(x, draws, "fgsm", batch.index, 0, self.config.start) if start is None else start
        begin = ball.project(begin, x)
        grad = target.gradient(batch._replace(x=begin), goal)
        return ball.project(ball.step(begin, grad, self.config.step * ball.threat.eps), x)
