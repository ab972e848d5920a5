"""Projected gradient descent (Madry et al. 2018): several small steps of ascent, each brought back into the ball.

Each step costs one forward pass and one backward pass to the input only. Without restarts and with `keep: last`
nothing else is run; there is no forward pass at the end.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from robustdistill.attacks.attack import Attack
from robustdistill.attacks.ball import Ball
from robustdistill.attacks.goals import GoalName, is_wrong
from robustdistill.attacks.types import Access, Batch, Goal, Target
from robustdistill.config import Strict
from robustdistill.rng import Draws


class PGD(Attack):
    """x_{k+1} = project(x_k + step · eps · direction(∇ goal(x_k))), from `restarts` first points."""

    name = "pgd"
    needs = Access.GRADIENT

    class Config(Strict):
        steps: int = Field(default=10, ge=1, description="gradient steps in each restart")
        step: float = Field(default=0.25, gt=0, description="length of a step, in eps")
        restarts: int = Field(default=1, ge=1, description="how often the search begins anew; the best one counts")
        start: Literal["uniform", "gaussian", "none"] = Field(
            default="uniform", description="first point: anywhere in the ball, x + 0.001 N(0, 1) (TRADES), or x"
        )
        goal: GoalName = Field(default="ce", description="what is driven up; kl: away from the model's own logits of x")
        keep: Literal["last", "best"] = Field(
            default="last", description="of one search: its last point (textbook) or the best it came by"
        )

    def search(
        self, target: Target, batch: Batch, ball: Ball, draws: Draws, goal: Goal, start: Tensor | None
    ) -> Tensor:
        best = _Best(goal)
        x_adv = batch.x
        for restart in range(self.config.restarts):
            first = start if restart == 0 else None
            if first is None:
                first = ball.start(batch.x, draws, "pgd", batch.index, restart, self.config.start)
            x_adv = self._climb(target, batch, ball, ball.project(first, batch.x), goal, best)
            if self.config.restarts > 1 or self.config.keep == "best":
                best.offer(x_adv, target.logits(x_adv), batch)
        return x_adv if best.x is None else best.x

    def _climb(self, target: Target, batch: Batch, ball: Ball, x_adv: Tensor, goal: Goal, best: _Best) -> Tensor:
        """One search. With keep "best" the points on the way are weighed in their own gradient pass, for free."""
        watched = best.watch if self.config.keep == "best" else goal
        size = self.config.step * ball.threat.eps
        for _ in range(self.config.steps):
            grad = target.gradient(batch._replace(x=x_adv), watched)
            x_adv = ball.project(ball.step(x_adv, grad, size), batch.x)
        return x_adv


class _Best:
    """The best point of each example so far: one that the model gets wrong before one it gets right, then the goal."""

    def __init__(self, goal: Goal) -> None:
        self.goal = goal
        self.x: Tensor | None = None
        self.wrong: Tensor
        self.value: Tensor

    def watch(self, logits: Tensor, batch: Batch) -> Tensor:
        """The goal, and takes note of the point it is asked about."""
        value = self.goal(logits, batch)
        self._weigh(batch.x.detach(), is_wrong(logits.detach(), batch.y), value.detach())
        return value

    def offer(self, x_adv: Tensor, logits: Tensor, batch: Batch) -> None:
        self._weigh(x_adv, is_wrong(logits, batch.y), self.goal(logits, batch._replace(x=x_adv)).detach())

    def _weigh(self, x_adv: Tensor, wrong: Tensor, value: Tensor) -> None:
        if self.x is None:
            self.x, self.wrong, self.value = x_adv.clone(), wrong, value
            return
        better = (wrong & ~self.wrong) | ((wrong == self.wrong) & (value > self.value))
        self.x[better] = x_adv[better]
        self.wrong = self.wrong | wrong
        self.value = value.where(better, self.value)
