"""Knowledge distillation (Hinton, Vinyals, Dean 2015): L = CE(S(x), y) + w · T² · KL(T(x)/T ‖ S(x)/T), clean inputs."""

from __future__ import annotations

import torch.nn.functional as F
from pydantic import Field

from robustdistill.objectives.kl import kl
from robustdistill.objectives.types import Distilled, Objective, Parts, Sees, Step


class KD(Objective):
    """One outer pass, on x; no attack. T = `temperature` for both models, after `teacher_temperature`."""

    name = "kd"
    needs_teacher = True
    teacher_sees = Sees.CLEAN
    source = "Hinton, Vinyals and Dean 2015"
    formula = "CE(S(x), y) + w·T²·KL(T(x)/T‖S(x)/T)"
    cost = "student 1 forward and backward; teacher 1 forward"
    when = "nobody attacks; the yardstick of the others"

    class Config(Distilled):
        temperature: float = Field(default=1.0, gt=0, description="of both softmaxes; the paper tries 1 to 20")

    def forward(self, step: Step) -> Parts:
        target, weight = self.lesson(self.clean_logits(step), step.batch.y)
        logits = step.student(step.batch.x)
        ce = F.cross_entropy(logits, step.batch.y, reduction="none")
        divergence = kl(target, logits, self.config.temperature)
        terms = {"ce": ce.detach(), "kl": divergence.detach()}
        return Parts(ce + weight * divergence, terms, logits.detach(), None)
