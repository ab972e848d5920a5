"""ABSLD (Zhao et al. 2024): RSLAD with a temperature of the teacher's labels for each class; hard classes catch up.

L = w · (a · KL(T(x)/t'_y ‖ S(x')) + (1 − a) · KL(T(x)/t_y ‖ S(x))), a = 5/6, t = t' = 1 at first,
x' maximising KL(T(x)/t'_y ‖ S(x')) from x + 0.001 N(0, 1). After each epoch, with L_c the mean over the examples of
class c of CE(S(x), y), and of CE(S(x'), y) for t':
t_c ← clip(t_c − h · (L_c − mean L) / max_k |L_k − mean L|, 0.5, 5), h = 0.1: a hard class gets sharper labels.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from robustdistill.objectives.kl import kl
from robustdistill.objectives.moving import KLAdversarial
from robustdistill.objectives.types import Distilled, Objective, Parts, Sees, Step

STATE = ("temperatures", "losses", "counts", "epoch")


class ABSLD(Objective):
    """Two outer passes: x, then x'. One teacher pass, on x, gives two targets, each a tensor of its own.

    The temperatures are updated **once an epoch**, as published (h and the bounds were found for that): by the first
    step that sees another epoch in its draws. Temperatures, sums of losses, counts and the epoch are buffers, so a run
    resumed within an epoch updates as the uninterrupted one does. An example's loss depends on the epochs before, not
    on its batch. A class that the epoch did not show keeps its temperature. The published code lowers h tenfold with
    each drop of lr and sums L_c instead of averaging it, which is the same where classes are balanced.
    """

    name = "absld"
    needs_teacher = True
    adversarial = True
    teacher_sees = Sees.CLEAN
    source: ClassVar[str] = "Zhao et al. 2024"
    formula: ClassVar[str] = (
        "w·(5/6·KL(T(x)/t'_y‖S(x')) + 1/6·KL(T(x)/t_y‖S(x))), t by class, lower where S loses more; "
        "x' maximises KL(T(x)/t'_y‖S(x'))"
    )
    cost: ClassVar[str] = "student K+2 forward and backward; teacher 1 forward"
    when: ClassVar[str] = "the worst class matters; needs many epochs for its temperatures to move"

    class Config(Distilled, KLAdversarial):
        adversarial_share: float = Field(default=5 / 6, ge=0, le=1, description="a: share of the KL under attack")
        rate: float = Field(default=0.1, ge=0, description="h: how far the temperature of a class moves in an epoch")
        coldest: float = Field(default=0.5, gt=0, le=1, description="least temperature of a class")
        hottest: float = Field(default=5.0, ge=1, description="largest temperature of a class")

    temperatures: Tensor
    losses: Tensor
    counts: Tensor
    epoch: Tensor

    def __init__(self, config: Config, *, where: str = "objective") -> None:
        super().__init__(config, where=where)
        self.register_buffer("temperatures", torch.ones(2, 0))  # under attack and clean; C is known at the first step
        self.register_buffer("losses", torch.zeros(2, 0))  # CE summed over the examples of each class in this epoch
        self.register_buffer("counts", torch.zeros(0))
        self.register_buffer("epoch", torch.tensor(-1))

    def forward(self, step: Step) -> Parts:
        share, y = self.config.adversarial_share, step.batch.y
        logits = self.clean_target(step)
        self._begin(step.draws.epoch, logits)
        hot_adv, hot_clean = self.temperatures[:, y, None].to(logits.dtype)
        target = logits / hot_adv
        x_adv = self.adversary(step, reference=target)
        clean, adversarial = step.student(step.batch.x), step.student(x_adv)
        kl_adv, kl_clean = kl(target, adversarial), kl(logits / hot_clean, clean)
        self._note(y, adversarial.detach(), clean.detach())
        loss = self.config.weight * (share * kl_adv + (1 - share) * kl_clean)
        terms = {"kl_adv": kl_adv.detach(), "kl_clean": kl_clean.detach()}
        return Parts(loss, terms, adversarial.detach(), x_adv)

    def _begin(self, epoch: int, logits: Tensor) -> None:
        """Temperatures of today's epoch, sums begun anew if it is another than the last step's."""
        if not len(self.counts):
            self.temperatures = torch.ones(2, logits.shape[1], device=logits.device)
        elif epoch != int(self.epoch):
            moved = torch.stack([self._moved(t, loss) for t, loss in zip(self.temperatures, self.losses, strict=True)])
            self.temperatures = moved.clamp(self.config.coldest, self.config.hottest)
        else:
            return
        self.losses = torch.zeros_like(self.temperatures)
        self.counts = torch.zeros_like(self.temperatures[0])
        self.epoch = torch.full_like(self.epoch, epoch)

    def _moved(self, temperatures: Tensor, losses: Tensor) -> Tensor:
        """Temperatures [C] after an epoch with these sums [C] of losses; not yet clipped."""
        seen = self.counts > 0
        mean = losses / self.counts.clamp_min(1)
        gap = torch.where(seen, mean - mean[seen].mean(), 0.0)
        rate: float = self.config.rate
        return temperatures - rate * gap / gap.abs().max().clamp_min(torch.finfo(gap.dtype).tiny)

    @torch.no_grad()
    def _note(self, y: Tensor, adversarial: Tensor, clean: Tensor) -> None:
        # A sum over the one-hot axis: index_add_ is not deterministic on a GPU, and a resumed run must be bit-equal.
        onehot = F.one_hot(y, len(self.counts)).float()
        ce = [F.cross_entropy(logits.float(), y, reduction="none") for logits in (adversarial, clean)]
        self.losses = self.losses + torch.stack([(onehot * each[:, None]).sum(dim=0) for each in ce])
        self.counts = self.counts + onehot.sum(dim=0)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """State of a run that has begun, into an objective that does not know the number of classes yet."""
        for name in STATE:
            if (saved := state_dict.get(prefix + name)) is not None:
                setattr(self, name, torch.empty_like(saved, device=self.epoch.device))
        super()._load_from_state_dict(state_dict, prefix, *args)
