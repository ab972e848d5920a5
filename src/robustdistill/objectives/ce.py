"""Standard training: L = CE(S(x), y)."""

from __future__ import annotations

import torch.nn.functional as F
from pydantic import Field

from robustdistill.config import Strict
from robustdistill.objectives.types import Objective, Parts, Step


class CrossEntropy(Objective):
    """L = −Σ_k q_k log softmax(S(x))_k, with q = (1 − label_smoothing) · onehot(y) + label_smoothing / C."""

    name = "ce"

    class Config(Strict):
        label_smoothing: float = Field(
            default=0.0, ge=0, lt=1, description="share of the label spread over all classes"
        )

    def forward(self, step: Step) -> Parts:
        logits = step.student(step.batch.x)
        loss = F.cross_entropy(logits, step.batch.y, reduction="none", label_smoothing=self.config.label_smoothing)
        return Parts(loss, {"ce": loss.detach()}, logits.detach(), None)
