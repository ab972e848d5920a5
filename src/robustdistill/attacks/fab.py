"""FAB-T, the fast adaptive boundary attack in its targeted form (Croce and Hein 2020b): it looks for the nearest wrong
point, along the boundary between the label and one other class at a time, and knows no eps on its way.

Each step costs one forward and backward pass to the input, and one forward pass.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from robustdistill.attacks.attack import Attack
from robustdistill.attacks.ball import Ball, column
from robustdistill.attacks.goals import TARGET, is_wrong, likely_wrong, margin, targeted_margin
from robustdistill.attacks.hunt import Hunt
from robustdistill.attacks.types import Access, Batch, Goal, Target, select
from robustdistill.config import Strict
from robustdistill.errors import BadInput
from robustdistill.rng import Draws

HALVINGS = 10  # of the segment from x to the nearest point found, at the end of `nearest`


class FAB(Attack):
    """With d(v) the shortest way from v to the plane on which z_t − z_y, linearised at x_k, is 0, within the box:

    x_{k+1} = box((1 − a)(x_k + η d(x_k)) + a (x + η d(x))), a = min(‖d(x_k)‖ / (‖d(x_k)‖ + ‖d(x)‖), α_max),
    and where the model errs there, back towards x: x_{k+1} ← (1 − β) x + β x_{k+1}.

    As an attack: a wrong point inside eps, else x. `nearest` gives the distances themselves.
    """

    name = "fab"
    needs = Access.GRADIENT

    class Config(Strict):
        steps: int = Field(default=100, ge=1, description="steps towards each class")
        targets: int = Field(default=9, ge=1, description="likeliest wrong classes that are tried")
        restarts: int = Field(default=1, ge=1, description="searches for each; the first one begins at x")
        pull: float = Field(default=0.1, ge=0, le=1, description="α_max of the paper: largest pull towards x")
        overshoot: float = Field(
            default=1.05, ge=1, description="η of the paper: how far beyond the plane, as a factor"
        )
        back: float = Field(default=0.9, gt=0, lt=1, description="β of the paper: what is kept of the way when wrong")
        goal: Literal["margin"] = Field(default="margin", description="the boundary of z_k = z_y")

    def search(
        self, target: Target, batch: Batch, ball: Ball, draws: Draws, goal: Goal, start: Tensor | None
    ) -> Tensor:
        if goal is not margin:
            raise BadInput("the attack 'fab' crosses class boundaries: it takes no other goal", fix="use pgd or apgd")
        hunt = Hunt(target, batch)
        self._hunt(hunt, target, ball, draws, start, ball.threat.eps)
        return torch.where(column(ball.contains(hunt.x, batch.x), batch.x), hunt.x, batch.x)

    def nearest(self, target: Target, batch: Batch, ball: Ball, draws: Draws) -> tuple[Tensor, Tensor]:
        """(x_adv [B, *shape], distance [B] float64): the nearest wrong point found whatever eps; inf where there is
        none, 0 where x itself is wrong. Ends with a bisection between x and that point. eps scales restarts only."""
        hunt = Hunt(target, batch)
        wrong = ~hunt.right
        best = self._hunt(hunt, target, ball, draws, None, -1.0)
        near, far = batch.x, hunt.x
        for _ in range(HALVINGS):
            middle = (near + far) / 2
            crossed = column(is_wrong(target.logits(middle), batch.y), middle)
            near, far = torch.where(crossed, near, middle), torch.where(crossed, middle, far)
        found = torch.isfinite(best)
        distance = torch.where(found, ball.distance(far, batch.x), best)
        x_adv = torch.where(column(found, far), far, batch.x)
        return x_adv, torch.where(wrong, torch.zeros_like(distance), distance)

    def _hunt(
        self, hunt: Hunt, target: Target, ball: Ball, draws: Draws, start: Tensor | None, enough: float
    ) -> Tensor:
        """All searches. An example with a point at a distance of at most `enough` is left alone. Distances [B]."""
        batch = hunt.batch
        best = torch.full((len(batch.x),), torch.inf, dtype=torch.float64, device=batch.x.device)
        classes = likely_wrong(hunt.clean, batch.y, self.config.targets)
        for number in range(classes.shape[1]):
            for restart in range(self.config.restarts):
                at, rest = hunt.rest()
                if not len(at):
                    return best
                rest = rest.with_context(**{TARGET: classes[at, number]})
                first = rest.x
                if start is not None and restart == 0:
                    first = ball.project(start[at], rest.x)
                elif restart:
                    drawn = ball.start(rest.x, draws, f"fab/{number}", rest.index, restart)
                    first = rest.x + (drawn - rest.x) / 2
                x_adv, distance = self._walk(target, rest, ball, first, best[at], enough)
                if enough > 0:
                    x_adv, distance = _inside(target, rest, ball, x_adv, distance)
                hunt.offer(at, x_adv, distance <= enough, -distance.to(x_adv.dtype))
                best[at] = torch.minimum(best[at], distance)
        return best

    def _walk(
        self, target: Target, batch: Batch, ball: Ball, x: Tensor, known: Tensor, enough: float
    ) -> tuple[Tensor, Tensor]:
        """One search. known [B]: the distance to beat. (x, distance) of the nearest wrong point, inf where none is."""
        options = self.config
        found, nearest = batch.x.clone(), torch.full_like(known, torch.inf)
        at, best = torch.arange(len(x), device=x.device), known.clone()
        heard: list[Tensor] = []

        def watched(logits: Tensor, point: Batch) -> Tensor:
            value = targeted_margin(logits, point)
            heard[:] = [value.detach()]
            return value

        for _ in range(options.steps):
            slope = torch.nan_to_num(target.gradient(batch._replace(x=x), watched))
            ahead = ((x - batch.x) * slope).flatten(1).sum(dim=1) - heard[0]
            # x_k and x in one call: on small batches the number of calls is what costs.
            ways = ball.onto_plane(
                torch.cat([x, batch.x]), slope.repeat(2, *[1] * (x.dim() - 1)), torch.cat([-heard[0], ahead])
            )
            here, there = ways.chunk(2)
            size = ball.distance(ways, torch.zeros_like(ways)).view(2, -1)
            share = (size[0] / size.sum(dim=0).clamp_min(torch.finfo(torch.float32).tiny)).clamp_max(options.pull)
            pull = column(share.to(x.dtype), x)
            x = (1 - pull) * (x + options.overshoot * here) + pull * (batch.x + options.overshoot * there)
            x = ball.boxed(x)
            wrong = is_wrong(target.logits(x), batch.y)
            if not bool(wrong.any()):
                continue
            distance = ball.distance(x, batch.x)
            better = wrong & (distance < best)
            best = torch.where(better, distance, best)
            found[at[better]], nearest[at[better]] = x[better], distance[better]
            x = torch.where(column(wrong, x), (1 - options.back) * batch.x + options.back * x, x)
            going = best > enough
            if not bool(going.all()):
                at, x, best, batch = at[going], x[going], best[going], select(batch, going)
                if not len(at):
                    break
        return found, nearest


def _inside(target: Target, batch: Batch, ball: Ball, x_adv: Tensor, distance: Tensor) -> tuple[Tensor, Tensor]:
    """A wrong point outside eps, brought to its surface, may still be wrong: one question instead of a bisection."""
    out = torch.isfinite(distance) & (distance > ball.threat.eps)
    if not bool(out.any()):
        return x_adv, distance
    rest, x_adv, distance = select(batch, out), x_adv.clone(), distance.clone()
    nearer = ball.project(x_adv[out], rest.x)
    wrong = is_wrong(target.logits(nearer), rest.y)
    rows = out.nonzero().squeeze(1)[wrong]
    x_adv[rows], distance[rows] = nearer[wrong], ball.threat.eps
    return x_adv, distance
