"""ABSLD (Zhao et al. 2024): RSLAD with a temperature of the teacher's labels for each class; hard classes catch up.

L = w · (a · KL(T(x)/t'_y ‖ S(x')) + (1 − a) · KL(T(x)/t_y ‖ S(x))), a = 5/6, t = t' = 1 at first,
x' maximising KL(T(x)/t'_y ‖ S(x')) from x + 0.001 N(0, 1). After each epoch, with L_c the mean over the examples of
class c of CE(S(x), y), and of CE(S(x'), y) for t':
t_c ← clip(t_c − h · (L_c − mean L) / max_k |L_k − mean L|, 0.5, 5), h = 0.1: a hard class gets sharper labels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from robustdistill.models.spec import ModelSpec
from robustdistill.objectives.kl import kl
from robustdistill.objectives.moving import KLAdversarial
from robustdistill.objectives.types import Distilled, Objective, Parts, Sees, Step


class ABSLD(Objective):
    """Two outer passes: x, then x'. One teacher pass, on x, gives two targets, each a tensor of its own.

    The temperatures are updated **once an epoch**, as published (h and the bounds were found for that): by the first
    step that sees another epoch in its draws. Temperatures, sums of losses, counts and the epoch are buffers that
    `after_step` writes, so a run resumed within an epoch updates as the uninterrupted one does. An example's loss
    depends on the epochs before, not on its batch. A class that the epoch did not show keeps its temperature. The
    published code lowers h tenfold with each drop of lr and sums L_c instead of averaging it, which is the same where
    classes are balanced.
    """

    name = "absld"
    needs_teacher = True
    adversarial = True
    teacher_sees = Sees.CLEAN
    source = "Zhao et al. 2024"
    formula = (
        "w·(5/6·KL(T(x)/t'_y‖S(x')) + 1/6·KL(T(x)/t_y‖S(x))), t by class, lower where S loses more; "
        "x' maximises KL(T(x)/t'_y‖S(x'))"
    )
    cost = "student K+2 forward and backward; teacher 1 forward"
    when = "the worst class matters; needs many epochs for its temperatures to move"

    class Config(Distilled, KLAdversarial):
        adversarial_share: float = Field(default=5 / 6, ge=0, le=1, description="a: share of the KL under attack")
        rate: float = Field(default=0.1, ge=0, description="h: how far the temperature of a class moves in an epoch")
        coldest: float = Field(default=0.5, gt=0, le=1, description="least temperature of a class")
        hottest: float = Field(default=5.0, ge=1, description="largest temperature of a class")

    temperatures: Tensor  # [2, C], under attack and clean
    losses: Tensor  # [2, C], likewise: CE summed over the examples of each class in this epoch
    counts: Tensor  # [C], those examples
    epoch: Tensor  # of the last step

    def __init__(self, config: Config, *, where: str = "objective") -> None:
        super().__init__(config, where=where)
        self._next: dict[str, Tensor] = {}

    def begin(self, student: nn.Module, spec: ModelSpec, seed: int) -> None:
        self.register_buffer("temperatures", torch.ones(2, spec.classes))
        self.register_buffer("losses", torch.zeros(2, spec.classes))
        self.register_buffer("counts", torch.zeros(spec.classes))
        self.register_buffer("epoch", torch.tensor(-1))

    def forward(self, step: Step) -> Parts:
        share, y = self.config.adversarial_share, step.batch.y
        anew = step.draws.epoch != int(self.epoch)
        temperatures = self._moved() if anew else self.temperatures
        hot_adv, hot_clean = temperatures[:, y, None]
        logits, weight = self.lesson(self.clean_logits(step), y)
        target = logits / hot_adv
        x_adv = self.adversary(step, reference=target)
        clean, adversarial = step.student(step.batch.x), step.student(x_adv)
        kl_adv, kl_clean = kl(target, adversarial), kl(logits / hot_clean, clean)
        losses, counts = _by_class(y, adversarial.detach(), clean.detach())
        self._next = {
            "temperatures": temperatures,
            "losses": losses if anew else self.losses + losses,
            "counts": counts if anew else self.counts + counts,
            "epoch": torch.full_like(self.epoch, step.draws.epoch),
        }
        loss = weight * (share * kl_adv + (1 - share) * kl_clean)
        terms = {"kl_adv": kl_adv.detach(), "kl_clean": kl_clean.detach()}
        return Parts(loss, terms, adversarial.detach(), x_adv)

    def after_step(self, student: nn.Module) -> None:
        for name, value in self._next.items():
            getattr(self, name).copy_(value)
        self._next = {}

    def _moved(self) -> Tensor:
        """Temperatures [2, C] after the epoch whose losses are at hand; those of before where there are none."""
        seen = self.counts > 0
        mean = self.losses / self.counts.clamp_min(1)
        gap = torch.where(seen, mean - mean[:, seen].mean(dim=1, keepdim=True), 0.0)
        widest = gap.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(gap.dtype).tiny)
        moved: Tensor = self.temperatures - self.config.rate * gap / widest
        return moved.clamp(self.config.coldest, self.config.hottest)


def _by_class(y: Tensor, adversarial: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
    """CE of both passes summed over the examples of each class, [2, C], and how many there are, [C]."""
    # A sum over the one-hot axis: index_add_ is not deterministic on a GPU, and a resumed run must be bit-equal.
    onehot = F.one_hot(y, clean.shape[1]).float()
    ce = [F.cross_entropy(logits.float(), y, reduction="none") for logits in (adversarial, clean)]
    return torch.stack([(onehot * each[:, None]).sum(dim=0) for each in ce]), onehot.sum(dim=0)
