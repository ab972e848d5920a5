"""B-MTARD (Zhao et al. 2024): MTARD whose teachers speak with equal certainty, each through a temperature of its own.

As MTARD with T_a(x')/t_a and T_n(x)/t_n. At each step t_a ← t_a − r_t · sign(H_a / H_n − 1), t_n ← t_n − r_t ·
sign(H_n / H_a − 1), both kept in [1, 10]; H = mean entropy of the teacher's tempered answers to the batch.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from robustdistill.objectives.mtard import MTARD


class BMTARD(MTARD):
    """The temperatures in L are those before the step's update, as in the published code; the student has none."""

    name = "b_mtard"
    source = "Zhao et al. 2024"
    formula = "mtard with T_a/t_a and T_n/t_n, the temperatures balanced by the teachers' entropies"
    when = "as mtard, where one teacher is much surer of itself than the other"
    temperatures: Tensor

    class Config(MTARD.Config):
        temperature_rate: float = Field(default=0.001, ge=0, description="r_t: how far a temperature moves in a step")
        lowest: float = Field(default=1.0, gt=0, description="of the teachers' temperatures")
        highest: float = Field(default=10.0, gt=0, description="of the teachers' temperatures")

    def __init__(self, config: Config, *, where: str = "objective") -> None:
        super().__init__(config, where=where)
        self.register_buffer("temperatures", torch.ones(2))  # t_n, t_a

    def tempered(self, clean: Tensor, adversarial: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        t_clean, t_adv = self.temperatures.unbind()
        clean, adversarial = clean / t_clean, adversarial / t_adv
        surer = torch.sign(entropy(adversarial).mean() - entropy(clean).mean())  # 1: T_n, whose t is to rise
        towards = torch.stack([surer, -surer])
        moved = self.temperatures + self.rate(self.config.temperature_rate, progress) * towards
        self._next["temperatures"] = moved.clamp(self.config.lowest, self.config.highest)
        return clean, adversarial


def entropy(logits: Tensor) -> Tensor:
    """H(softmax(z)) in nats, [B, C] to [B]."""
    log_p = logits.float().log_softmax(dim=1)
    return -(log_p.exp() * log_p).sum(dim=1)
