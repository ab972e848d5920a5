"""What all attacks share: the checks before the search, and how a goal is chosen."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor

from robustdistill.attacks.ball import Ball, ball
from robustdistill.attacks.goals import GOALS, REFERENCE, TARGETED
from robustdistill.attacks.types import Access, Batch, Goal, Target
from robustdistill.errors import BadInput
from robustdistill.rng import Draws
from robustdistill.threat import ThreatModel


class Attack(ABC):
    """x_adv = attack(target, batch, threat, draws): for each example the worst point found inside the threat.

    needs: the access it takes. A subclass has a nested Config with at least `goal` (and `start`, where the goal may be
    "kl"), and writes `search`.
    """

    name: ClassVar[str]
    needs: ClassVar[Access]
    Config: ClassVar[type[Any]]

    def __init__(self, config: Any) -> None:
        self.config = config

    def __call__(
        self,
        target: Target,
        batch: Batch,
        threat: ThreatModel,
        draws: Draws,
        goal: Goal | None = None,
        start: Tensor | None = None,
    ) -> Tensor:
        """x_adv [B, *shape] inside ball and box, detached. An empty batch is returned as it is.

        goal: maximised instead of the configured one. start: first point [B, *shape] (projected) instead of a drawn
        one. Goal "kl" without batch.context["reference"] moves away from the model's own logits of x (TRADES).
        Raises BadInput if the target gives too little access, if x lies outside the box, or if that last search would
        begin at x itself, where its gradient is 0.
        """
        if target.access < self.needs:
            raise BadInput(
                f"attack {self.name!r} needs {self.needs.name} access, the target gives {target.access.name}"
            )
        if len(batch.x) == 0:
            return batch.x
        geometry = ball(threat)
        _require_in_box(batch.x, geometry)
        if goal is None and self.config.goal == "kl" and batch.get(REFERENCE) is None:
            if start is None and self.config.start == "none":
                raise BadInput(
                    f"attack {self.name!r} would stand still: the KL from the model's own logits is flat at x",
                    fix="start: gaussian",
                )
            batch = batch.with_context(**{REFERENCE: target.logits(batch.x)})
        chosen = goal or (GOALS | TARGETED)[self.config.goal]
        return self.search(target, batch, geometry, draws, chosen, start).detach()

    @abstractmethod
    def search(
        self, target: Target, batch: Batch, ball: Ball, draws: Draws, goal: Goal, start: Tensor | None
    ) -> Tensor:
        """x_adv for a checked batch of at least one example."""


def _require_in_box(x: Tensor, ball: Ball) -> None:
    """eps is in the units of x, so x outside [low, high] means that somebody normalised before the model did."""
    low, high = (float(bound) for bound in x.aminmax())
    threat, tol = ball.threat, ball.tolerance
    if not (low >= threat.low - tol and high <= threat.high + tol):  # written so that NaN is refused
        raise BadInput(
            f"inputs lie in [{low:.4g}, {high:.4g}], outside the threat model's [{threat.low:g}, {threat.high:g}]",
            fix="give unnormalised inputs: normalisation is a layer of the model",
        )
