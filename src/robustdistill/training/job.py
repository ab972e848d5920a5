"""What the loop is given and what it returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from robustdistill.config import Training
from robustdistill.engine.devices import Compute
from robustdistill.errors import BadInput
from robustdistill.journal import Journal
from robustdistill.models.classifier import Classifier
from robustdistill.objectives.types import Objective, Teacher
from robustdistill.threat import ThreatModel
from robustdistill.training.stored import Stored


class Examples(Protocol):
    """One split. x: uint8 [N, *shape]. y, id: int64 [N]."""

    @property
    def x(self) -> NDArray[np.uint8]: ...
    @property
    def y(self) -> NDArray[np.int64]: ...
    @property
    def id(self) -> NDArray[np.int64]: ...


class Tools(Protocol):
    """What the loop needs of a stage's tools."""

    @property
    def compute(self) -> Compute: ...
    @property
    def journal(self) -> Journal: ...
    @property
    def scratch(self) -> Path: ...
    @property
    def debug(self) -> bool: ...


@dataclass(frozen=True)
class Job:
    """One training. `model` is trained in place; `seed` is of every draw; `stored` are adversarial examples to use.

    clean_teacher: an undefended model, for objectives with two teachers.
    """

    model: Classifier
    objective: Objective
    train: Examples
    val: Examples
    threat: ThreatModel
    training: Training
    seed: int
    teacher: Teacher | None = None
    stored: Stored | None = None
    clean_teacher: Teacher | None = None

    def require_examples(self) -> None:
        """Raises BadInput for fewer examples than batch norm and a validation need."""
        if len(self.train.y) < 2 or len(self.val.y) < 1:
            told = f"{len(self.train.y)} training and {len(self.val.y)} validation examples are too few to train on"
            raise BadInput(told, where="data")


@dataclass(frozen=True)
class Result:
    """best: the weights of the best epoch on validation data. last: those after the last step.

    history: one row an epoch; a figure that was not measured is absent. alarms: {kind, epoch, message, advice}.
    examples: trained on, repeats counted. cpu_seconds: of attack and update, and of the teacher's answers that were
    asked for beforehand; without validation. Both together are what makes two budgets equal.
    """

    best: Classifier
    last: Classifier
    best_epoch: int
    history: list[dict[str, Any]] = field(default_factory=list)
    alarms: list[dict[str, Any]] = field(default_factory=list)
    examples: int = 0
    cpu_seconds: float = 0.0

    @property
    def best_row(self) -> dict[str, Any]:
        return next(row for row in self.history if row["epoch"] == self.best_epoch)
