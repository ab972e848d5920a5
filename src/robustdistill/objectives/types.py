"""What an objective is: a per-example loss of a student, given a batch, a threat and perhaps a teacher.

Losses and terms are [B]; only the training loop reduces. An objective owns its inner attack; the attack runs in
evaluation mode through a Target, the outer passes in the mode the loop set (training).
Where both S(x) and S(x') are needed there are **two passes**, clean first: batch norm normalises clean and adversarial
batches apart, as in the published TRADES and RSLAD code, and its running statistics blend both. One pass over the
concatenation would normalise each with the other's statistics: another method.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar, NamedTuple

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from robustdistill import attacks
from robustdistill.attacks.types import Batch, Goal, Target, TorchTarget, attack_mode
from robustdistill.config import Spec, Strict
from robustdistill.errors import BadInput
from robustdistill.models.spec import ModelSpec
from robustdistill.objectives.target import Distilled, shape, trusted
from robustdistill.rng import Draws
from robustdistill.threat import ThreatModel

__all__ = ["TEACHER_LOGITS", "Adversarial", "Distilled", "Objective", "Parts", "Sees", "Step", "Teacher"]

TEACHER_LOGITS = "teacher_logits"  # key of Batch.context: T(x), known from before


class Sees(Enum):
    """What of the teacher an objective uses, cheapest first."""

    NOTHING = "nothing"
    CLEAN = "clean"  # T(x)
    ADVERSARIAL = "adversarial"  # T(x') after the attack
    GRADIENT = "gradient"  # dT/dx during the attack


class Parts(NamedTuple):
    """loss [B] with its graph; terms: detached summands [B] by name, unweighted; logits [B, C] detached, of x_adv if
    there is one, else of x; x_adv [B, *shape] or None."""

    loss: Tensor
    terms: dict[str, Tensor]
    logits: Tensor
    x_adv: Tensor | None


class Teacher:
    """A finished model that is only looked at: frozen, evaluation mode, weights and buffers bit-equal for ever.

    It carries its own normalisation, so it takes the same x as the student. The given module is frozen in place.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model.eval().requires_grad_(False)

    def logits(self, x: Tensor) -> Tensor:
        """T(x) [B, C], without a graph."""
        with torch.no_grad():
            return self.logits_with_input_grad(x)

    def logits_with_input_grad(self, x: Tensor) -> Tensor:
        """T(x) [B, C] with a graph to x only (AdaAD, SAAD)."""
        with attack_mode(self.model):  # again at each call: somebody may have called train() on it meanwhile
            logits: Tensor = self.model(x)
        return logits


@dataclass(frozen=True)
class Step:
    """All that a training step knows. target: the student as the attack sees it (None: the student itself).
    threat: today's, its eps may be warming up. draws: at today's epoch. progress: share of the training done, [0, 1).
    clean_teacher: an undefended model, for methods with two. x_adv: a known answer of the inner attack."""

    student: nn.Module
    target: Target | None
    teacher: Teacher | None
    batch: Batch
    threat: ThreatModel
    draws: Draws
    progress: float = 0.0
    clean_teacher: Teacher | None = None
    x_adv: Tensor | None = None


class Objective(nn.Module, ABC):
    """Base. A subclass sets the class attributes, documents its Config and writes the equation in `forward`."""

    name: ClassVar[str]
    source: ClassVar[str]  # authors, year
    formula: ClassVar[str]  # one line, S student, T teacher, x' under attack
    cost: ClassVar[str]  # passes of one step; K: steps of the inner attack
    when: ClassVar[str]  # to use it, one short sentence
    Config: ClassVar[type[Any]]
    needs_teacher: bool = False
    needs_clean_teacher: bool = False
    adversarial: bool = False
    teacher_sees: Sees = Sees.NOTHING

    def __init__(self, config: Any, *, where: str = "objective") -> None:
        """config: a Config of the class. where: its place in the user's files. Raises BadInput for a bad attack."""
        super().__init__()
        self.config = config
        spec: Spec | None = getattr(config, "attack", None)
        self.attack = None if spec is None else attacks.build(spec, f"{where}.attack")

    def companions(self) -> list[nn.Module]:
        """Models that are trained jointly with the student (peers, guides); none here. They exist after `begin`."""
        return []

    def begin(self, student: nn.Module, spec: ModelSpec, seed: int) -> None:
        """Called once, before the optimiser is made and a checkpoint is read: builds what else is trained or carried.

        Parameters and buffers made here are optimised (where they require a gradient), moved and saved with the
        objective. student: at its first weights; spec: what it is; seed: of the training.
        """

    def after_step(self, student: nn.Module) -> None:
        """Called once after each update of the student's weights: the place to change state.

        `forward` must leave state alone, since one step may ask for the loss more than once.
        """

    @abstractmethod
    def forward(self, step: Step) -> Parts:
        """The loss of one step; see the subclass."""

    def adversary(self, step: Step, reference: Tensor | None = None) -> Tensor:
        """x' [B, *shape]: the inner maximisation, begun at batch.context["start"] if that is there.

        reference: logits [B, C], without a graph, that the goal "kl" moves away from.
        """
        if step.x_adv is not None:
            return step.x_adv
        if self.attack is None:
            raise ValueError(f"objective {self.name!r} has no attack")
        batch = step.batch if reference is None else step.batch.with_context(reference=reference)
        target = step.target or TorchTarget(step.student)
        goal = self.moving_goal(step) if self.attack.config.goal == "kl" else None
        return self.attack(target, batch, step.threat, step.draws, goal=goal, start=batch.get("start"))

    def moving_goal(self, step: Step) -> Goal | None:
        """What the goal "kl" stands for where the target of the divergence moves with x'; None: the reference."""
        return None

    def teacher_of(self, step: Step) -> Teacher:
        """The step's teacher. Raises BadInput if there is none."""
        if step.teacher is None:
            raise BadInput(f"objective {self.name!r} needs a teacher", fix="choose ce, pgd_at or trades without one")
        return step.teacher

    def clean_logits(self, step: Step) -> Tensor:
        """T(x) [B, C] as the teacher gives it, without a graph: from batch.context["teacher_logits"], else anew."""
        teacher, known = self.teacher_of(step), step.batch.get(TEACHER_LOGITS)
        return teacher.logits(step.batch.x) if known is None else known

    def clean_teacher_of(self, step: Step) -> Teacher:
        """The step's second, undefended teacher. Raises BadInput if there is none."""
        if step.clean_teacher is None:
            raise BadInput(
                f"objective {self.name!r} needs a clean teacher", fix="use it for the student, whose is `initial`"
            )
        return step.clean_teacher

    def shaped(self, logits: Tensor, y: Tensor) -> Tensor:
        """A teacher's logits [B, C], of x or of x', as the target of a divergence: logits of the same shape."""
        return shape(logits, y, self.config)

    def trust(self, logits: Tensor, y: Tensor) -> Tensor:
        """The weight of each example's distillation term, [B]: `weight`, less where a doubted teacher errs.

        logits: the teacher's own, before `shaped`.
        """
        weights: Tensor = self.config.weight * trusted(logits, y, self.config)
        return weights

    def lesson(self, logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Target [B, C] and weight [B] that a teacher's answer comes to. All that an objective needs for the options:

        target, weight = self.lesson(self.clean_logits(step), y)  # or of self.teacher_of(step).logits(x_adv)
        loss = weight * kl(target, step.student(x_adv))
        """
        return self.shaped(logits, y), self.trust(logits, y)


class Adversarial(Strict):
    """Options of every objective with an inner attack."""

    attack: Spec = Field(
        default={"name": "pgd", "steps": 10, "step": 0.25, "start": "uniform", "goal": "ce"},
        description="the inner attack; what is left out is this default's (of another attack: goal and start)",
        validate_default=True,
    )

    @field_validator("attack")
    @classmethod
    def _complete(cls, given: Spec) -> Spec:
        default: Spec = cls.model_fields["attack"].default
        if given.get("name", default["name"]) == default["name"]:
            return default | given
        return {key: default[key] for key in ("goal", "start")} | given
