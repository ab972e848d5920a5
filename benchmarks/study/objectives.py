"""Objectives that only the study needs: a teacher whose answers were shuffled, and one that is heard late."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robustdistill import objectives
from robustdistill.config import Spec, Strict
from robustdistill.models.spec import ModelSpec
from robustdistill.objectives.types import TEACHER_LOGITS, Objective, Parts, Sees, Step
from robustdistill.rng import Draws


def build(spec: Spec) -> Objective:
    """One of the project's or of OWN."""
    kind = OWN.get(str(spec["name"]))
    if kind is None:
        return objectives.build(spec)
    return kind(kind.Config.model_validate({key: value for key, value in spec.items() if key != "name"}))


class Shuffled(Objective):
    """`base`, taught with T(x) permuted: what then remains of its gain is not due to what the teacher knows of x.

    classes: all logits but the largest change places, in one way for each example: how sure T is remains, what x
    resembles does not. examples: T(x) is that of the next example of the same label in the batch: what a class
    resembles remains, what this x resembles does not.
    """

    name = "shuffled"
    needs_teacher = True
    adversarial = True
    teacher_sees = Sees.CLEAN

    class Config(Strict):
        base: Spec
        how: Literal["classes", "examples"]
        teacher_cache: str = "auto"

    def __init__(self, config: Any, *, where: str = "objective") -> None:
        super().__init__(config, where=where)
        self.base = objectives.build(config.base, f"{where}.base")

    def begin(self, student: nn.Module, spec: ModelSpec, seed: int) -> None:
        self.base.begin(student, spec, seed)

    def forward(self, step: Step) -> Parts:
        logits, batch = self.clean_logits(step), step.batch
        mixed = among_classes(logits, batch.index) if self.config.how == "classes" else among_examples(logits, batch.y)
        parts: Parts = self.base(replace(step, batch=batch.with_context(**{TEACHER_LOGITS: mixed})))
        return parts


def among_classes(logits: Tensor, index: Tensor) -> Tensor:
    """Logits [B, C] with the largest in its place and the others permuted, by a draw of each index [B]."""
    top = logits.argmax(dim=1, keepdim=True)
    keys = Draws(0).fold("shuffled teacher").uniform(logits, index, "classes").scatter(1, top, 2.0)
    places = torch.arange(logits.shape[1], device=logits.device).expand_as(logits)
    places = places.masked_select(places != top).view(len(logits), -1)
    return logits.scatter(1, places, logits.gather(1, keys.argsort(dim=1)[:, :-1]))


def among_examples(logits: Tensor, y: Tensor) -> Tensor:
    """Logits [B, C] in which each example has those of the next one with its label [B]; alone, its own."""
    order = y.argsort(stable=True)
    following = order.roll(-1)
    first = {int(label): int(order[place]) for place, label in reversed(list(enumerate(y[order].tolist())))}
    ends = y[order] != y[following]
    ends[-1] = True
    following[ends] = torch.tensor([first[int(label)] for label in y[order][ends]], device=y.device)
    mixed = torch.empty_like(logits)
    mixed[order] = logits[following]
    return mixed


class Late(Objective):
    """`first` up to a share `at` of the training, `then` afterwards; the schedule of lr runs on through both."""

    name = "late"
    needs_teacher = True
    adversarial = True
    teacher_sees = Sees.CLEAN

    class Config(Strict):
        first: Spec
        then: Spec
        at: float = 2 / 3
        teacher_cache: str = "auto"

    def __init__(self, config: Any, *, where: str = "objective") -> None:
        super().__init__(config, where=where)
        self.first = objectives.build(config.first, f"{where}.first")
        self.then = objectives.build(config.then, f"{where}.then")

    def forward(self, step: Step) -> Parts:
        parts: Parts = (self.first if step.progress < self.config.at else self.then)(step)
        return parts._replace(terms={})  # of two objectives: their names differ


OWN: dict[str, type[Objective]] = {"shuffled": Shuffled, "late": Late}
