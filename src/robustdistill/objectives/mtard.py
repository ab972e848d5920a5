"""MTARD (Zhao et al. 2022): a robust teacher T_a for x' and an undefended one T_n for x, weighed so that the student
learns from both at one pace.

L = w · (w_a · KL(T_a(x') ‖ S(x')) + w_n · KL(T_n(x) ‖ S(x))), w_a = 1 − w_n, x' maximising CE(S(x'), y).
At each step w_n ← w_n − r · (w_n − l_n / (l_n + l_a)), l = the batch's mean KL over that of the first step.
"""

from __future__ import annotations

from bisect import bisect_right

import torch
from pydantic import Field
from torch import Tensor, nn

from robustdistill.config import Spec
from robustdistill.objectives.kl import kl
from robustdistill.objectives.types import Adversarial, Distilled, Objective, Parts, Sees, Step

TINY = 1e-12  # a first loss of 0 would make every later one infinitely large beside it


class MTARD(Objective):
    """Two outer passes: x, then x'. The weights in L are those after the step's own update, as in the published code.

    The state counts from `after_step` on: asked twice in one step, `forward` answers twice from the same state.
    """

    name = "mtard"
    needs_teacher = True
    needs_clean_teacher = True
    adversarial = True
    teacher_sees = Sees.ADVERSARIAL
    source = "Zhao et al. 2022"
    formula = "w_a·KL(T_a(x')‖S(x')) + w_n·KL(T_n(x)‖S(x)), w balanced by the losses; x' maximises CE(S(x'), y)"
    cost = "student K+2 forward and backward; each teacher 1 forward"
    when = "clean accuracy is to be kept and an undefended model is there anyway"
    clean_weight: Tensor
    first: Tensor

    class Config(Distilled, Adversarial):
        balance_rate: float = Field(default=0.025, ge=0, le=1, description="r: how fast the weights follow the losses")
        decays: list[float] = Field(
            default=[215 / 300, 260 / 300, 285 / 300],
            description="shares of the training after each of which a tenth of the rate is left",
        )
        attack: Spec = Field(
            default={"name": "pgd", "steps": 10, "step": 0.25, "start": "gaussian", "goal": "ce"},
            description="the inner attack on the student",
            validate_default=True,
        )

    def __init__(self, config: Config, *, where: str = "objective") -> None:
        super().__init__(config, where=where)
        self.register_buffer("clean_weight", torch.tensor(0.5))  # w_n
        self.register_buffer("first", torch.zeros(2))  # mean KL of the first step, clean and adversarial; 0: not yet
        self._next: dict[str, Tensor] = {}

    def forward(self, step: Step) -> Parts:
        x, y = step.batch.x, step.batch.y
        x_adv = self.adversary(step)
        clean_target, clean_trust = self.lesson(self.clean_teacher_of(step).logits(x), y)
        adv_target, adv_trust = self.lesson(self.teacher_of(step).logits(x_adv), y)
        clean_target, adv_target = self.tempered(clean_target, adv_target, step.progress)
        clean = step.student(x)
        adversarial = step.student(x_adv)
        kl_clean, kl_adv = kl(clean_target, clean), kl(adv_target, adversarial)
        share = self._balanced(torch.stack([kl_clean.detach().mean(), kl_adv.detach().mean()]), step.progress)
        loss = clean_trust * share * kl_clean + adv_trust * (1 - share) * kl_adv
        terms = {"kl_clean": kl_clean.detach(), "kl_adv": kl_adv.detach()}
        return Parts(loss, terms, adversarial.detach(), x_adv)

    def after_step(self, student: nn.Module) -> None:
        for name, value in self._next.items():
            getattr(self, name).copy_(value)
        self._next = {}

    def tempered(self, clean: Tensor, adversarial: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        """The logits of T_n and T_a [B, C] as the student is to match them; here as they are."""
        return clean, adversarial

    def rate(self, rate: float, progress: float) -> float:
        """What is left of a rate after the decays that have passed."""
        return float(rate * 0.1 ** bisect_right(sorted(self.config.decays), progress))

    def _balanced(self, losses: Tensor, progress: float) -> Tensor:
        """w_n of this step, from the mean losses [2], clean and adversarial."""
        first = torch.where(self.first > 0, self.first, losses).clamp_min(TINY)
        relative = losses / first
        wanted = torch.where(relative.sum() > 0, relative[0] / relative.sum(), self.clean_weight)
        share = self.clean_weight - self.rate(self.config.balance_rate, progress) * (self.clean_weight - wanted)
        self._next |= {"clean_weight": share, "first": first}
        return share
