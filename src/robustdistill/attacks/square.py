"""The Square attack (Andriushchenko, Croce, Flammarion, Hein 2020): random search with square windows, by scores alone.

Each query is one forward pass. Images [C, H, W] only: the method lives from neighbouring pixels.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from robustdistill.attacks.attack import Attack
from robustdistill.attacks.ball import Ball
from robustdistill.attacks.goals import is_wrong
from robustdistill.attacks.hunt import Hunt
from robustdistill.attacks.types import Access, Batch, Goal, Target, select
from robustdistill.attacks.windows import pattern
from robustdistill.config import Strict
from robustdistill.errors import BadInput
from robustdistill.rng import Draws

HALVED = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # queries after which the window's area halves
BLOCK = 64  # queries whose draws are made at once


class Square(Attack):
    """x_{k+1} = the proposal at a random window if the goal is higher there, else x_k.

    The window covers a share of the image that begins at `share` and is halved after 10, 50, 200, 500, 1000, 2000,
    4000, 6000 and 8000 queries. Proposals: `windows`.
    """

    name = "square"
    needs = Access.SCORES

    class Config(Strict):
        queries: int = Field(default=5000, ge=1, description="forward passes in each search")
        share: float = Field(
            default=0.8, gt=0, le=1, description="p of the paper: share of the image in the first window"
        )
        restarts: int = Field(default=1, ge=1, description="searches from different first points")
        goal: Literal["margin", "ce"] = Field(default="margin", description="what is driven up")

    def search(
        self, target: Target, batch: Batch, ball: Ball, draws: Draws, goal: Goal, start: Tensor | None
    ) -> Tensor:
        if batch.x.dim() != 4:
            raise BadInput(
                f"the attack 'square' needs images [C, H, W], not inputs of shape {list(batch.x.shape[1:])}",
                fix="use an attack by gradient: apgd",
            )
        hunt = Hunt(target, batch)
        for restart in range(self.config.restarts):
            at, rest = hunt.rest()
            if not len(at):
                break
            first = None if start is None or restart else ball.project(start[at], rest.x)
            hunt.offer(at, *self._search(target, rest, ball, draws.fold(f"square/{restart}"), goal, first))
        return hunt.x

    def _search(
        self, target: Target, batch: Batch, ball: Ball, draws: Draws, goal: Goal, first: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(x, wrong, goal) for each example; those that break leave the search."""
        shapes = pattern(ball)
        x = (
            shapes.first(batch.x, _uniform(draws, batch, "first", shapes.first_draws(batch.x)))
            if first is None
            else first
        )
        found, broken = x.clone(), torch.zeros(len(x), dtype=torch.bool, device=x.device)
        values, at = x.new_full((len(x),), float("-inf")), torch.arange(len(x), device=x.device)
        best, proposal, drawn = values, x, x.new_empty(len(x), 0)
        for query in range(self.config.queries):
            if query:
                block, row = divmod(query - 1, BLOCK)
                if row == 0:
                    drawn = _uniform(draws, batch, f"block/{block}", (BLOCK, shapes.draws(batch.x)))
                proposal = shapes.proposal(batch.x, x, drawn[:, row], share(self.config.share, query))
            logits = target.logits(proposal)
            wrong, value = is_wrong(logits, batch.y), goal(logits, batch._replace(x=proposal))
            better = wrong | (value > best)
            x = torch.where(better.view(-1, 1, 1, 1), proposal, x)
            best = torch.where(better, value, best)
            if bool(wrong.any()):
                rows, rest = at[wrong], ~wrong
                found[rows], values[rows], broken[rows] = x[wrong], best[wrong], True
                at, x, best, drawn, batch = at[rest], x[rest], best[rest], drawn[rest], select(batch, rest)
                if not len(at):
                    break
        found[at], values[at] = x, best
        return found, broken, values


def share(first: float, query: int) -> float:
    """Share of the image that the window covers at this query, counted from 1."""
    return first * 0.5 ** sum(query > mark for mark in HALVED)


def _uniform(draws: Draws, batch: Batch, tag: str, shape: tuple[int, ...]) -> Tensor:
    """U[0, 1) of [B, *shape], keyed by example."""
    return draws.uniform(batch.x.new_empty(len(batch.x), *shape), batch.index, tag)
