"""Exponential moving average of weights, batch-norm statistics included: wider optima, less robust overfitting."""

from __future__ import annotations

import copy

from robustdistill.models.classifier import Classifier
from robustdistill.models.follow import Follower


class Average:
    """avg ← d · avg + (1 − d) · weights, with d = min(decay, (1 + n) / (10 + n)) so that early steps are forgotten."""

    def __init__(self, model: Classifier, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._follower = Follower(self.model, model)

    def update(self, step: int) -> None:
        self._follower.follow(min(self.decay, (1.0 + step) / (10.0 + step)))
