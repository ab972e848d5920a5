"""Standard training: L = CE(S(x), y)."""

from __future__ import annotations

import torch.nn.functional as F

from robustdistill.objectives.smoothing import Smoothed
from robustdistill.objectives.types import Objective, Parts, Step


class CrossEntropy(Objective):
    """L = −Σ_k q_k log softmax(S(x))_k, with q = (1 − label_smoothing) · onehot(y) + label_smoothing / C."""

    name = "ce"
    source = "Szegedy et al. 2016 (label smoothing)"
    formula = "CE(S(x), y)"
    cost = "student 1 forward and backward"
    when = "a plain, undefended model"

    class Config(Smoothed):
        pass

    def forward(self, step: Step) -> Parts:
        logits = step.student(step.batch.x)
        loss = F.cross_entropy(logits, step.batch.y, reduction="none", label_smoothing=self.config.label_smoothing)
        return Parts(loss, {"ce": loss.detach()}, logits.detach(), None)
