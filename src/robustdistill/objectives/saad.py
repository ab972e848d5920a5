"""SAAD (Lee and Chung 2026): an attack on the teacher's tangent at x, and examples weighed by its doubt at x'.

L = w · (u · (KL(T(x') ‖ S(x')) + α · p · KL(T(x') − T(x⁻) ‖ S(x') − S(x⁻))) + b · (1 − û) · KL(T(x) ‖ S(x))),
u = 5 · (H(T(x')) − min H), û = u / max u, min and max over the batch; H the entropy in nats; x⁻ = 2x − x';
p the share of the training that is done; α = 1, b = 0; x' maximising KL(T^(x') ‖ S(x')) from x + 0.001 N(0, 1), with
T^(x') = T(x) + e_y · ⟨∇_x T_y(x), x' − x⟩.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from robustdistill.attacks.types import Batch, Goal
from robustdistill.objectives.kl import kl
from robustdistill.objectives.moving import KLAdversarial
from robustdistill.objectives.types import Distilled, Objective, Parts, Sees, Step


class SAAD(Objective):
    """**Batch statistics**: u needs the smallest entropy of the batch, û the largest too, so an example's loss depends
    on the others. The example with the smallest entropy weighs nothing; nor does a batch of one.

    All of the teacher is constant in the outer loss. Passes over x (only if b > 0), x', x⁻ (only if α · p > 0), in this
    order. x⁻ may leave the box by eps, as published. The paper averages weights from epoch 95 of 200 on: `ema`.
    """

    name = "saad"
    needs_teacher = True
    adversarial = True
    teacher_sees = Sees.GRADIENT
    source = "Lee and Chung 2026"
    formula = (
        "w·(u·(KL(T(x')‖S(x')) + α·p·KL(T(x')−T(x⁻)‖S(x')−S(x⁻))) + b·(1−û)·KL(T(x)‖S(x))), u = 5·(H(T(x')) − min H); "
        "x' maximises KL(T^(x')‖S(x')), T^ = T(x) + e_y·⟨∇T_y(x), x'−x⟩"
    )
    cost = "student K+2 forward and backward (K+3 if b > 0); teacher 1 forward and backward, 2 forward (3 if b > 0)"
    when = "the teacher is very strong and confident, or too large to be attacked along"

    class Config(Distilled, KLAdversarial):
        entropy_scale: float = Field(default=5.0, gt=0, description="of the weight u")
        gradient_weight: float = Field(
            default=1.0, ge=0, description="α: of IGDM's term; the paper takes 10 for C = 100"
        )
        clean_weight: float = Field(default=0.0, ge=0, description="b: of the KL on clean inputs")

    def adversary(self, step: Step, reference: Tensor | None = None) -> Tensor:
        if step.x_adv is None:
            logits, slope = self._tangent(step)
            step = replace(step, batch=step.batch.with_context(origin=step.batch.x, tangent=logits, slope=slope))
        return super().adversary(step, reference)

    def moving_goal(self, step: Step) -> Goal:
        return self._divergence_from_tangent

    def _tangent(self, step: Step) -> tuple[Tensor, Tensor]:
        """T(x) [B, C] and ∇_x T_y(x) [B, *shape], both without a graph."""
        with torch.enable_grad():
            x = step.batch.x.detach().requires_grad_(True)
            logits = self.teacher_of(step).logits_with_input_grad(x)
            # Examples do not interact in evaluation mode, so the gradient of the sum is each example's own.
            slope = torch.autograd.grad(logits.gather(1, step.batch.y[:, None]).sum(), x)[0]
        return logits.detach(), slope

    def _divergence_from_tangent(self, logits: Tensor, batch: Batch) -> Tensor:
        """KL(T^(x') ‖ S(x')), [B], differentiable in both."""
        origin, tangent, slope = batch.get("origin"), batch.get("tangent"), batch.get("slope")
        assert origin is not None and tangent is not None and slope is not None
        rise = ((batch.x - origin) * slope).flatten(1).sum(dim=1)
        label = F.one_hot(batch.y, logits.shape[1]).to(tangent.dtype)
        return kl(self.shaped(tangent + label * rise[:, None], batch.y), logits)

    def forward(self, step: Step) -> Parts:
        config, teacher, y = self.config, self.teacher_of(step), step.batch.y
        x_adv = self.adversary(step)
        at_x_adv = teacher.logits(x_adv)
        clean = step.student(step.batch.x) if config.clean_weight > 0 else None
        adversarial = step.student(x_adv)
        target, trust = self.lesson(at_x_adv, y)
        divergence = kl(target, adversarial)
        weight, share = _weights(at_x_adv, config.entropy_scale)
        terms = {"kl_adv": divergence.detach(), "entropy_weight": weight}
        if config.gradient_weight * step.progress > 0:
            x_minus = 2 * step.batch.x - x_adv
            turn = target - self.shaped(teacher.logits(x_minus), y)
            gradient = kl(turn, adversarial - step.student(x_minus))
            divergence = divergence + config.gradient_weight * step.progress * gradient
            terms["kl_gradient"] = gradient.detach()
        loss = trust * weight * divergence
        if clean is not None:
            target, trust = self.lesson(self.clean_logits(step), y)
            kl_clean = kl(target, clean)
            loss, terms["kl_clean"] = loss + trust * config.clean_weight * (1 - share) * kl_clean, kl_clean.detach()
        return Parts(loss, terms, adversarial.detach(), x_adv)


def _weights(logits: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """u and û of the teacher's own logits [B, C], [B] each. û is 0 where all entropies are equal."""
    certainty = kl(logits, torch.zeros_like(logits))  # log C − H
    weight = scale * (certainty.max() - certainty)
    return weight, weight / weight.max().clamp_min(torch.finfo(weight.dtype).tiny)
