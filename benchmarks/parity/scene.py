"""What both sides are given: a student, two teachers, a companion and a batch; small, in float64, on the CPU."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from benchmarks.parity.code import Halting
from torch import Tensor, nn

from robustdistill import models
from robustdistill.models import Classifier, ModelSpec
from robustdistill.rng import Draws, seeded

BATCH, SHAPE, CLASSES = 20, (3, 8, 8), 10
EPS, STEP, STEPS = 8 / 255, 2 / 255, 10  # what the scripts of RSLAD, MTARD, SAAD and ABSLD have written into them


class Probed(nn.Module):
    """A model that notes its inputs. `probe`, 0 and added to each of them, collects the gradient of all."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.probe = nn.Parameter(torch.zeros(BATCH, *SHAPE, dtype=torch.float64))
        self.asked: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.asked.append(x.detach().clone())
        logits: Tensor = self.net(x + self.probe)
        return logits

    def points(self, x: Tensor) -> list[Tensor]:
        """What it was asked about besides x, in order."""
        return [asked for asked in self.asked if not torch.equal(asked, x)]


@dataclass(frozen=True)
class Scene:
    """Everything is a function of `scene()`'s constants: two scenes are equal and share nothing."""

    spec: ModelSpec
    student: Probed
    teacher: nn.Module
    clean_teacher: nn.Module
    companion: nn.Module
    x: Tensor
    y: Tensor
    index: Tensor
    optimizer: Halting


def scene(edge: bool = False) -> Scene:
    """x keeps 0.05 from the edges of the box; with `edge` a sixth of it lies on them. The teacher is right about a
    half of the labels."""
    spec = ModelSpec(
        {"name": "preact_resnet", "width": 4, "blocks": 1}, SHAPE, CLASSES, 0.0, 1.0, (0.5,) * 3, (0.25,) * 3
    )
    index = torch.arange(BATCH)
    x = 0.05 + 0.9 * Draws(1).uniform(torch.empty(BATCH, *SHAPE, dtype=torch.float64), index, "x")
    if edge:
        x = ((x - 0.5) * 4 / 3 + 0.5).clamp(0, 1)
    student = Probed(_model(spec, "student", 3.0).train())
    teacher, clean_teacher = _model(spec, "teacher", 6.0).eval(), _model(spec, "clean teacher", 9.0).eval()
    companion = _model(spec, "companion", 4.0).train()
    with torch.no_grad():
        y = torch.where(index % 2 == 0, teacher(x).argmax(dim=1), index % CLASSES)
    trained = [*student.parameters(), *companion.parameters()]
    return Scene(spec, student, teacher, clean_teacher, companion, x, y, index, Halting(trained, lr=0.1))


def _model(spec: ModelSpec, purpose: str, confidence: float) -> Classifier:
    """At its first weights a net is nearly uniform, and its batch norm knows nothing: both are mended here."""
    model = models.build(spec, 5, purpose).double()
    seen = Draws(2).uniform(torch.empty(64, *SHAPE, dtype=torch.float64), torch.arange(64), purpose)
    with torch.no_grad():
        for parameter in model.net.head.parameters():  # type: ignore[union-attr]
            parameter *= confidence
        for _ in range(20):
            model.train()(seen)
    return model


@contextmanager
def world() -> Iterator[None]:
    """float64 throughout, no GPU (`cuda()` and `float()` give back what they are asked of), one seed, no warnings."""
    kept = torch.get_default_dtype()
    with ExitStack() as stack:
        for owner, name in ((Tensor, "cuda"), (nn.Module, "cuda"), (Tensor, "float")):
            stack.enter_context(patch.object(owner, name, _itself))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(seeded("parity"))
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(kept)


def _itself(value: Any, *arguments: Any, **options: Any) -> Any:
    return value
