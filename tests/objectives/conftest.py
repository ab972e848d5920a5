"""A student and a teacher with batch norm (whose buffers betray any forbidden pass), and one step of training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustdistill import objectives
from robustdistill.attacks import Batch
from robustdistill.config import Strict
from robustdistill.models import MODELS, ModelSpec
from robustdistill.objectives import Objective, Step, Teacher
from robustdistill.rng import Draws, seeded
from robustdistill.threat import ThreatModel

CLASSES, FEATURES = 4, 12


def net(*seed: int | str, width: int = 16, classes: int = CLASSES) -> nn.Sequential:
    """Smooth, so that losses agree across processors; no dropout, so that a second pass repeats the first."""
    with seeded("objectives", *seed):
        return nn.Sequential(
            nn.Flatten(), nn.Linear(FEATURES, width), nn.BatchNorm1d(width), nn.SiLU(), nn.Linear(width, classes)
        )


def confident(classes: int = CLASSES) -> nn.Module:
    """A teacher with opinions: at its first weights a net is nearly uniform, and a divergence from it nearly 0."""
    model = net("teacher", width=24, classes=classes)
    with torch.no_grad():
        model[4].weight *= 6
    return model


class Toy(nn.Sequential):
    """The net as an architecture, for objectives that build a model of their own."""

    name = "toy"

    class Config(Strict):
        pass

    def __init__(self, config: Config, shape: tuple[int, ...], classes: int) -> None:
        super().__init__(*net("companion", classes=classes))


def toy(classes: int = CLASSES) -> ModelSpec:
    """What the net is, for objectives that ask."""
    return ModelSpec({"name": "toy"}, (3, 4), classes, 0.0, 1.0, (0.0,) * 3, (1.0,) * 3)


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Objective, Step]]:
    """make(spec, **fields of Step): an objective and a step on fresh models. The student is in training mode, half of
    the training is done."""
    monkeypatch.setitem(MODELS, "toy", Toy)

    def build(spec: dict[str, Any], classes: int = CLASSES, **given: Any) -> tuple[Objective, Step]:
        index = torch.arange(32)
        x = Draws(4).uniform(torch.empty(32, 3, 4), index, "x")
        fields: dict[str, Any] = {
            "student": net("student", classes=classes).train(),
            "target": None,
            "teacher": Teacher(confident(classes)),
            "clean_teacher": Teacher(net("clean teacher", classes=classes)),
            "batch": Batch(x, index % classes, index),
            "threat": ThreatModel("linf", 0.1),
            "draws": Draws(8, epoch=2),
            "progress": 0.5,
        }
        step, objective = Step(**fields | given), objectives.build(spec)
        objective.begin(step.student, toy(classes), 8)
        return objective.train(), step

    return build


@pytest.fixture(name="toy")
def toy_spec() -> Callable[..., ModelSpec]:
    return toy


class TwoLogits(nn.Module):
    """z = scale · x + shift for two features: every worst case can be written down."""

    def __init__(self, scale: float, shift: tuple[float, float]) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))
        self.shift = nn.Parameter(torch.tensor(shift))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x + self.shift


@pytest.fixture
def two_logits() -> type[TwoLogits]:
    return TwoLogits
