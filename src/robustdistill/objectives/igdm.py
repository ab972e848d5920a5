"""IGDM (Lee, Cho and Kim 2025): beside any loss, the student's input gradient follows the teacher's.

L = L_base + w · p · KL(T(x + d) − T(x − d) ‖ S(x + d) − S(x − d)), d = x' − x with the x' of the base,
p the share of the training that is done, w = 1 on CIFAR-10, 10 to 20 on CIFAR-100. A difference of logits over 2d
is a directional derivative to second order; softmax of the differences makes it a divergence.
"""

from __future__ import annotations

from pydantic import Field, ValidationError, field_validator
from torch import Tensor, nn

from robustdistill.config import Spec, dump
from robustdistill.errors import BadInput
from robustdistill.models.spec import ModelSpec
from robustdistill.objectives.heard import Heard
from robustdistill.objectives.kl import kl
from robustdistill.objectives.types import Distilled, Objective, Parts, Sees, Step


class IGDM(Objective):
    """All of the teacher is constant. S(x + d) and, where the base has asked for it, T(x + d) are the base's own
    passes; S(x − d) is one more, made after them if w · p > 0. x − d may leave the box by eps, as published.

    `weight` and the teacher's options beside it are of the added term; those of the base stand in `base`.
    """

    name = "igdm"
    needs_teacher = True
    adversarial = True
    teacher_sees = Sees.GRADIENT  # of the default base; at least ADVERSARIAL
    source = "Lee, Cho and Kim 2025"
    formula = "L_base + w·p·KL(T(x+d)−T(x−d)‖S(x+d)−S(x−d)), d = x'−x of the base, p the progress"
    cost = "that of the base, and student 1 forward and backward, teacher 1 forward (2 if T(x') is new)"
    when = "on top of another method, when the teacher may be seen at x' and time allows one more pass"

    class Config(Distilled):
        weight: float = Field(default=1.0, ge=0, description="of the gradient term at the end of training")
        base: Spec = Field(
            default={"name": "adaad"},
            description="the objective it is added to, with its options",
            validate_default=True,
        )

        @field_validator("base")
        @classmethod
        def _complete(cls, given: Spec) -> Spec:
            """With all defaults: what is recorded is complete. A bad base is left to `build`, which knows its place."""
            from robustdistill.objectives import OBJECTIVES  # here, because that table holds this class

            found = OBJECTIVES.get(str(given.get("name")))
            try:
                config = found.Config.model_validate({k: v for k, v in given.items() if k != "name"}) if found else None
            except ValidationError:
                return given
            return given if config is None else {"name": given["name"], **dump(config)}

    def __init__(self, config: Config, *, where: str = "objective") -> None:
        """Raises BadInput for a bad base, one without an inner attack, and IGDM itself."""
        super().__init__(config, where=where)
        from robustdistill.objectives import build

        if config.base.get("name") == self.name:
            raise BadInput("igdm cannot be its own base", where=f"{where}.base", fix="name: adaad")
        self.base = build(config.base, f"{where}.base")
        if not self.base.adversarial:
            raise BadInput(
                f"objective {self.base.name!r} attacks nothing, so there is no direction to compare gradients along",
                where=f"{where}.base",
                fix="name: adaad, or another one with an attack",
            )

    def companions(self) -> list[nn.Module]:
        return self.base.companions()

    def begin(self, student: nn.Module, spec: ModelSpec, seed: int) -> None:
        self.base.begin(student, spec, seed)

    def after_step(self, student: nn.Module) -> None:
        self.base.after_step(student)

    def adversary(self, step: Step, reference: Tensor | None = None) -> Tensor:
        return self.base.adversary(step, reference)

    def forward(self, step: Step) -> Parts:
        teacher, ramp = self.teacher_of(step), self.config.weight * step.progress
        with Heard(step.student) as student, Heard(teacher.model) as known:
            parts: Parts = self.base(step)
        if ramp == 0 or parts.x_adv is None:
            return parts
        x, y, x_plus = step.batch.x, step.batch.y, parts.x_adv
        x_minus = 2 * x - x_plus
        at_plus, plus = known.about(x_plus), student.about(x_plus)
        at_plus = teacher.logits(x_plus) if at_plus is None else at_plus
        plus = step.student(x_plus) if plus is None else plus
        target, weight = self.lesson(at_plus, y)
        turn = target - self.shaped(teacher.logits(x_minus), y)
        gradient = kl(turn, plus - step.student(x_minus))
        loss = parts.loss + weight * step.progress * gradient
        return parts._replace(loss=loss, terms=parts.terms | {"kl_gradient": gradient.detach()})
