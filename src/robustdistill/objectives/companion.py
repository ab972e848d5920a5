"""What objectives share that train a second model beside the student.

The companion lives in the objective: the optimiser treats its weights as the student's, and a checkpoint holds them.
It is in training mode in its outer passes, with batch-norm statistics of its own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import Field
from torch import nn

from robustdistill import models
from robustdistill.config import Spec, Strict
from robustdistill.models import ModelSpec
from robustdistill.objectives.types import Objective
from robustdistill.registry import resolve


class Accompanied(Strict):
    """Options of every objective with a companion."""

    companion: Spec | None = Field(
        default=None, description="architecture of the model trained beside the student; null: the student's"
    )


class Companionship(Objective):
    """Base. The Config of a subclass is `Accompanied`, and its `forward` uses `self.companion`, there from `begin`."""

    companion: nn.Module

    def __init__(self, config: Any, *, where: str = "objective") -> None:
        """Raises BadInput for a bad attack or companion."""
        super().__init__(config, where=where)
        if config.companion is not None:
            resolve("model", models.MODELS, config.companion, where=f"{where}.companion")

    def begin(self, student: nn.Module, spec: ModelSpec, seed: int) -> None:
        """The companion takes the student's inputs and classes; its first weights are drawn apart from those."""
        chosen = replace(spec, model=self.config.companion or spec.model)
        self.companion = models.build(chosen, seed, "companion")

    def companions(self) -> list[nn.Module]:
        return [self.companion]
