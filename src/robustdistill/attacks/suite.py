"""The project's own suite: four attacks of different kinds in sequence, each on the examples that still stand.

The parts and their budgets are those of AutoAttack's version "standard" (Croce and Hein 2020), written anew: the
per-example worst case over them is a figure of its own, and a second opinion on that of the package.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from robustdistill.attacks.apgd import APGD
from robustdistill.attacks.attack import Attack
from robustdistill.attacks.ball import Ball
from robustdistill.attacks.fab import FAB
from robustdistill.attacks.goals import is_wrong, margin
from robustdistill.attacks.hunt import Hunt
from robustdistill.attacks.square import Square
from robustdistill.attacks.types import Access, Batch, Goal, Target
from robustdistill.config import Strict
from robustdistill.errors import BadInput
from robustdistill.rng import Draws


class Own(Attack):
    """APGD on CE, APGD on targeted DLR (below 4 classes: the targeted margin), FAB-T, Square (images only).

    The result is the first wrong point found, else the point of the largest margin among the ends of the parts.
    """

    name = "own"
    needs = Access.GRADIENT

    class Config(Strict):
        steps: int = Field(default=100, ge=1, description="gradient steps of each search of APGD and FAB")
        targets: int = Field(default=9, ge=1, description="likeliest wrong classes for APGD-T and FAB-T")
        queries: int = Field(default=5000, ge=0, description="of Square; 0 leaves it out")
        restarts: int = Field(default=1, ge=1, description="of each part")
        goal: Literal["margin"] = Field(default="margin", description="what the ends of the parts are compared by")

    def search(
        self, target: Target, batch: Batch, ball: Ball, draws: Draws, goal: Goal, start: Tensor | None
    ) -> Tensor:
        if goal is not margin:
            raise BadInput("the attack 'own' has a goal for each of its parts", fix="use pgd or apgd")
        hunt = Hunt(target, batch)
        for name, part in parts(self.config, hunt.clean.shape[1], tuple(batch.x.shape[1:])).items():
            at, rest = hunt.rest()
            if not len(at):
                break
            x_adv = part(target, rest, ball.threat, draws.fold(name), start=None if start is None else start[at])
            logits = target.logits(x_adv)
            hunt.offer(at, x_adv, is_wrong(logits, rest.y), margin(logits, rest))
        return hunt.x


def parts(config: Own.Config, classes: int, shape: tuple[int, ...]) -> dict[str, Attack]:
    """The attacks that can run against a model of so many classes on inputs of this shape, in order."""
    steps, restarts, targets = config.steps, config.restarts, config.targets
    directed: Literal["targeted-dlr", "targeted-margin"] = "targeted-dlr" if classes >= 4 else "targeted-margin"
    found: dict[str, Attack] = {
        "apgd-ce": APGD(APGD.Config(steps=steps, restarts=restarts)),
        "apgd-t": APGD(APGD.Config(steps=steps, restarts=restarts, goal=directed, targets=targets)),
        "fab-t": FAB(FAB.Config(steps=steps, restarts=restarts, targets=targets)),
    }
    if len(shape) == 3 and config.queries:
        found["square"] = Square(Square.Config(queries=config.queries, restarts=restarts))
    return found
