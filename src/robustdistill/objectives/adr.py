"""ADR (Wu, Wang, Chen 2024): the label, rectified by the student's own moving average M.

L = −Σ_k q_k log softmax(S(x'))_k, x' maximising it, with p = softmax(M(x)/T), λ' = clip(λ − (max_k p_k − p_y), 0, 1)
and q = λ' · p + (1 − λ') · onehot(y). Over the training T falls and λ rises along half a cosine.
"""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from robustdistill.config import Spec
from robustdistill.models import ModelSpec
from robustdistill.models.follow import Follower
from robustdistill.objectives.types import Adversarial, Objective, Parts, Step, Teacher


class ADR(Objective):
    """λ is lowered by as much as M prefers another class to y. M = γ · M + (1 − γ) · S after each step, statistics
    included; it begins as S, is never optimised and answers in evaluation mode. Defaults are those for CIFAR-10.
    """

    name = "adr"
    adversarial = True
    source = "Wu, Wang, Chen 2024"
    formula = "CE(S(x'), q), q = λ'·softmax(M(x)/T) + (1−λ')·onehot(y), λ' = clip(λ − (max p − p_y), 0, 1), M = mean S"
    cost = "student K+1 forward and backward, its moving average 1 forward"
    when = "adversarial training without a teacher that overfits: soft labels for the price of one more pass"
    average: nn.Module
    follower: Follower | None = None

    class Config(Adversarial):
        decay: float = Field(default=0.995, ge=0, lt=1, description="γ of the average")
        temperature: float = Field(default=2.5, gt=0, description="T at the beginning")
        last_temperature: float = Field(default=2.0, gt=0, description="T at the end")
        share: float = Field(default=0.7, ge=0, le=1, description="λ at the beginning: share of the average's answer")
        last_share: float = Field(default=0.95, ge=0, le=1, description="λ at the end")
        attack: Spec = Field(
            default={"name": "pgd", "steps": 10, "step": 0.25, "start": "uniform", "goal": "kl"},
            description="the inner attack; `kl` moves away from q, as CE(S(x'), q) does",
            validate_default=True,
        )

    def begin(self, student: nn.Module, spec: ModelSpec, seed: int) -> None:
        self.average = copy.deepcopy(student).eval().requires_grad_(False)
        self.follower = None

    def after_step(self, student: nn.Module) -> None:
        self.follower = self.follower or Follower(self.average, student)  # here: both have been moved to the device
        self.follower.follow(self.config.decay)

    def forward(self, step: Step) -> Parts:
        label = self.rectified(step)
        x_adv = self.adversary(step, reference=label.log())
        logits = step.student(x_adv)
        loss = F.cross_entropy(logits, label, reduction="none")
        return Parts(loss, {"ce_adv": loss.detach()}, logits.detach(), x_adv)

    def rectified(self, step: Step) -> Tensor:
        """q [B, C], without a graph."""
        config, y = self.config, step.batch.y
        temperature = annealed(config.temperature, config.last_temperature, step.progress)
        share = annealed(config.share, config.last_share, step.progress)
        p = (Teacher(self.average).logits(step.batch.x).float() / temperature).softmax(dim=1)
        lead = p.max(dim=1, keepdim=True).values - p.gather(1, y[:, None])
        trust = (share - lead).clamp(0, 1)
        return torch.lerp(F.one_hot(y, p.shape[1]).to(p.dtype), p, trust)


def annealed(first: float, last: float, progress: float) -> float:
    """From `first` to `last` along half a cosine; progress in [0, 1]."""
    return last + (first - last) * (1 + math.cos(math.pi * progress)) / 2
