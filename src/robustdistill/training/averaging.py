"""Averages of weights, batch-norm statistics included: wider optima, less robust overfitting. One of two kinds.

Statistics are averaged as the weights are. Estimating them anew would need another run over the training data, and a
choice: clean inputs or attacked ones? A model's statistics blend both as its objective shows them, and those of clean
inputs alone cost much under attack. The average keeps the blend, costs nothing, and is there at every validation.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod

from robustdistill.config import Training
from robustdistill.models.classifier import Classifier
from robustdistill.models.follow import Follower


class Average(ABC):
    """avg ← d · avg + (1 − d) · weights after each step. `model` is the average, in evaluation mode."""

    def __init__(self, model: Classifier) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._follower = Follower(self.model, model)

    def update(self, step: int) -> None:
        """step: the one just done, counted from 0."""
        self._follower.follow(self.decay(step))

    @abstractmethod
    def decay(self, step: int) -> float:
        """d at this step, a function of it alone: a resumed run needs no memory."""


class EMA(Average):
    """Exponential: d = min(decay, (1 + n) / (10 + n)), so that early steps are forgotten."""

    def __init__(self, model: Classifier, decay: float) -> None:
        super().__init__(model)
        self._decay = decay

    def decay(self, step: int) -> float:
        return min(self._decay, (1.0 + step) / (10.0 + step))


class SWA(Average):
    """Stochastic weight averaging (Izmailov et al. 2018): the plain mean of the weights after each step from `first`
    on, d = n / (n + 1) with n of them taken so far. Before that it is the model itself (d = 0)."""

    def __init__(self, model: Classifier, first: int) -> None:
        super().__init__(model)
        self._first = first

    def decay(self, step: int) -> float:
        taken = max(0, step - self._first)
        return taken / (taken + 1)


def average_of(model: Classifier, training: Training, total: int) -> Average | None:
    """The average that the settings ask for, for a training of `total` steps."""
    if training.swa is not None:
        return SWA(model, int(training.swa * total))
    return EMA(model, training.ema) if training.ema else None
