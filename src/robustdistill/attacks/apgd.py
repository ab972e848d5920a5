"""Auto-PGD (Croce and Hein 2020, algorithm 1): PGD with momentum that halves its own step where the goal stops rising.

Each step costs one forward pass and one backward pass to the input. A search ends with one more forward pass.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from robustdistill.attacks.attack import Attack
from robustdistill.attacks.ball import Ball, column
from robustdistill.attacks.goals import TARGET, TARGETED, is_wrong, likely_wrong, margin
from robustdistill.attacks.hunt import Hunt
from robustdistill.attacks.types import Access, Batch, Goal, Target, select
from robustdistill.config import Strict
from robustdistill.rng import Draws

MOMENTUM = 0.75  # α of the paper: share of the new step, the rest goes on in the last direction
FIRST_STEP = 2.0  # in eps


class APGD(Attack):
    """z = P(x_k + η ∇goal(x_k)), x_{k+1} = P(x_k + α (z − x_k) + (1 − α)(x_k − x_{k−1})), η₀ = 2 eps.

    At checkpoints η is halved, and the search goes on from its best point, for the examples whose goal rose in fewer
    than `rho` of the steps since the last one, or whose η stayed and whose best goal did not rise.
    An example is left at its first wrong point: enough for a verdict, but a weaker inner attack than PGD.
    A targeted goal is searched once for each of the likeliest wrong classes. Where the model never
    errs, the result is the best point of the goal (of a targeted goal: of the margin).
    """

    name = "apgd"
    needs = Access.GRADIENT

    class Config(Strict):
        steps: int = Field(default=100, ge=1, description="gradient steps in each search")
        restarts: int = Field(default=1, ge=1, description="searches from different first points")
        goal: Literal["ce", "margin", "kl", "dlr", "targeted-dlr", "targeted-margin"] = Field(
            default="ce", description="what is driven up; dlr needs 3 classes, targeted-dlr 4"
        )
        targets: int = Field(default=9, ge=1, description="likeliest wrong classes that a targeted goal is tried for")
        rho: float = Field(
            default=0.75, gt=0, le=1, description="share of steps that must rise, else the step is halved"
        )
        start: Literal["uniform", "gaussian", "none"] = Field(default="uniform", description="first point, as of pgd")

    def search(
        self, target: Target, batch: Batch, ball: Ball, draws: Draws, goal: Goal, start: Tensor | None
    ) -> Tensor:
        hunt = Hunt(target, batch)
        targeted = goal in TARGETED.values()
        classes = likely_wrong(hunt.clean, batch.y, self.config.targets if targeted else 1)
        for number in range(classes.shape[1]):
            for restart in range(self.config.restarts):
                at, rest = hunt.rest()
                if not len(at):
                    return hunt.x
                if targeted:
                    rest = rest.with_context(**{TARGET: classes[at, number]})
                if start is not None and restart == 0:
                    first = ball.project(start[at], rest.x)
                else:
                    first = ball.start(rest.x, draws, f"apgd/{number}", rest.index, restart, self.config.start)
                end = _climb(target, rest, ball, first, goal, self.config.steps, self.config.rho)
                rank = margin(target.logits(end.x), rest) if targeted else end.value
                hunt.offer(at, end.x, end.wrong, rank)
        return hunt.x


class _End(NamedTuple):
    """x [B, *shape]: the first wrong point, else the best one; value [B]: the goal there."""

    x: Tensor
    wrong: Tensor
    value: Tensor


@dataclass
class _Climbers:
    """The state of the n examples of one search that still stand. at: their rows. size [n, 1, ...]: η.

    rises: since the last checkpoint. halved: η was, at the last checkpoint. checked: best value at that time.
    """

    at: Tensor
    x: Tensor
    before: Tensor
    best: Tensor
    best_grad: Tensor
    value: Tensor
    last: Tensor
    size: Tensor
    rises: Tensor
    halved: Tensor
    checked: Tensor

    def keep(self, mask: Tensor) -> None:
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name)[mask])

    def note(self, value: Tensor, grad: Tensor | None) -> None:
        """The goal and its gradient at x. Without a gradient: at the end, when it is of no more use."""
        better = value > self.value
        self.rises += value > self.last
        self.last = value
        self.value = torch.where(better, value, self.value)
        self.best = torch.where(column(better, self.x), self.x, self.best)
        if grad is not None:
            self.best_grad = torch.where(column(better, self.x), grad, self.best_grad)

    def check(self, steps: int, rho: float, grad: Tensor) -> Tensor:
        """A checkpoint after `steps` steps: conditions 1 and 2 of the paper. The gradient to go on with."""
        stuck = (self.rises < rho * steps) | (~self.halved & (self.value <= self.checked))
        wide = column(stuck, self.x)
        self.size = torch.where(wide, self.size / 2, self.size)
        self.x = torch.where(wide, self.best, self.x)
        self.halved, self.checked, self.rises = stuck, self.value, torch.zeros_like(self.rises)
        return torch.where(wide, self.best_grad, grad)


def _begin(x: Tensor, size: float) -> _Climbers:
    n, low = len(x), x.new_full((len(x),), float("-inf"))
    sizes, none = column(x.new_full((n,), size), x), torch.zeros(n, dtype=torch.bool, device=x.device)
    at = torch.arange(n, device=x.device)
    return _Climbers(at, x, x, x, torch.zeros_like(x), low, low, sizes, torch.zeros_like(at), none, low)


def _climb(target: Target, batch: Batch, ball: Ball, first: Tensor, goal: Goal, steps: int, rho: float) -> _End:
    """One search from `first`. Examples that break leave it."""
    end = _End(
        first.clone(), torch.zeros(len(first), dtype=torch.bool, device=first.device), first.new_empty(len(first))
    )
    state, marks, seen = _begin(first, FIRST_STEP * ball.threat.eps), checkpoints(steps), 0
    heard: list[Tensor] = []

    def watched(logits: Tensor, at: Batch) -> Tensor:
        value = goal(logits, at)
        heard[:] = [is_wrong(logits.detach(), at.y), value.detach()]
        return value

    for k in range(steps):
        grad = torch.nan_to_num(target.gradient(batch._replace(x=state.x), watched))
        wrong, value = heard
        state.note(value, grad)
        if k == 0:
            state.checked, state.rises = value, torch.zeros_like(state.rises)  # the first value is no rise
        if bool(wrong.any()):
            _settle(end, state, wrong)
            batch, grad = select(batch, ~wrong), grad[~wrong]
            if not len(state.at):
                return end
        if k in marks:
            grad = state.check(k - seen, rho, grad)
            seen = k
        z = ball.project(ball.step(state.x, grad, state.size), batch.x)
        if k > 0:
            z = ball.project(state.x + MOMENTUM * (z - state.x) + (1 - MOMENTUM) * (state.x - state.before), batch.x)
        state.before, state.x = state.x, z
    logits = target.logits(state.x)
    state.note(goal(logits, batch._replace(x=state.x)), None)
    _settle(end, state, is_wrong(logits, batch.y))
    end.x[state.at], end.value[state.at] = state.best, state.value
    return end


def _settle(end: _End, state: _Climbers, wrong: Tensor) -> None:
    """The examples that are wrong now leave the search with this point."""
    rows = state.at[wrong]
    end.x[rows], end.value[rows], end.wrong[rows] = state.x[wrong], state.last[wrong], True
    state.keep(~wrong)


def checkpoints(steps: int) -> list[int]:
    """After how many steps the search takes stock: w_j = ⌈p_j · steps⌉, p₁ = 0.22, each gap 0.03 shorter than the one
    before and at least 0.06 (section 3.2 of the paper)."""
    percent = [0, 22]  # whole numbers: 0.57 · 100 is more than 57 in floating point
    while percent[-1] < 100:
        percent.append(percent[-1] + max(percent[-1] - percent[-2] - 3, 6))
    return sorted({mark for mark in (-(-share * steps // 100) for share in percent) if 0 < mark < steps})
