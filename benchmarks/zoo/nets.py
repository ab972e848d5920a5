"""The nets of the zoo: honest ones, and those that were trained for what is suspicious about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from benchmarks.suite_agreement import small, train
from benchmarks.zoo.disturb import DISTURB
from benchmarks.zoo.masks import TEMPERATURE

from robustdistill import models, objectives, recipes, training
from robustdistill.data.prepared import Prepared
from robustdistill.engine.devices import Compute
from robustdistill.models import Classifier
from robustdistill.objectives.ce import CrossEntropy
from robustdistill.objectives.types import Objective, Parts, Step, Teacher
from robustdistill.rng import derive
from robustdistill.threat import ThreatModel

EPS, HALF = 0.2, 0.1
INNER = {"name": "pgd", "steps": 4, "step": 0.4}
SOFT = INNER | {"goal": "kl", "start": "gaussian"}
ONE_STEP = {"name": "fgsm", "step": 1.0, "start": "none"}  # without a random start: overfits to itself


class Disturbed(CrossEntropy):
    """L = CE(S(d(x)), y) with a disturbance d, drawn anew in each epoch."""

    def __init__(self, name: str) -> None:
        super().__init__(CrossEntropy.Config())
        self.disturb = DISTURB[name]

    def forward(self, step: Step) -> Parts:
        x = self.disturb(step.draws, step.batch.x, step.batch.index)
        return super().forward(Step(**{**vars(step), "batch": step.batch._replace(x=x)}))


class Softened(CrossEntropy):
    """L = T · CE(softmax(S(x) / T), q), q = softmax(teacher(x) / T), or the label without a teacher: defensive
    distillation (Papernot et al. 2016) at T = TEMPERATURE; its factor T keeps the size of the gradient."""

    def __init__(self) -> None:
        super().__init__(CrossEntropy.Config())

    def forward(self, step: Step) -> Parts:
        z = step.student(step.batch.x)
        taught = step.teacher.logits(step.batch.x) if step.teacher else None
        q = step.batch.y if taught is None else (taught / TEMPERATURE).softmax(1)
        loss = TEMPERATURE * F.cross_entropy(z / TEMPERATURE, q, reduction="none")
        return Parts(loss, {"ce": loss.detach()}, z.detach(), None)


@dataclass(frozen=True)
class Net:
    """objective: a spec, or one of this file. eps: of its training and of the attacks on it. teacher: another net.
    size: of small_cnn. epochs: times those asked for; its last weights are kept where `last`, else the best."""

    objective: dict[str, Any] | Objective
    eps: float = EPS
    teacher: str | None = None
    size: str = "nano"
    epochs: int = 1
    last: bool = False


HONEST = {
    "plain": Net({"name": "ce"}),
    "pgd_at": Net({"name": "pgd_at", "attack": INNER}),
    "pgd_at-half": Net({"name": "pgd_at", "attack": INNER}, HALF),
    "trades": Net({"name": "trades"}),
    "trades-half": Net({"name": "trades"}, HALF),
    "rslad": Net({"name": "rslad", "attack": SOFT}, EPS, "pgd_at"),
    "rslad-half": Net({"name": "rslad", "attack": SOFT}, HALF, "pgd_at-half"),
}
OTHERS = {
    "noise": Net(Disturbed("noise"), last=True),
    "dropout": Net(Disturbed("dropout"), HALF, last=True),
    "resize": Net(Disturbed("resize"), HALF, last=True),
    "hot": Net(Softened(), HALF, last=True),
    "distilled": Net(Softened(), HALF, "hot", last=True),
    "fgsm": Net({"name": "pgd_at", "attack": ONE_STEP}, 0.3, size="micro", epochs=2, last=True),
}
NETS = HONEST | OTHERS


def threat_of(name: str, found: Prepared) -> ThreatModel:
    """What the net is trained for and judged under."""
    return ThreatModel("linf", NETS[name].eps, found.manifest.low, found.manifest.high)


def trained(name: str, seed: int, found: Prepared, arguments: Any) -> Classifier:
    """One of NETS, trained once; its teacher first."""
    net = NETS[name]
    teacher = trained(net.teacher, seed, found, arguments) if net.teacher else None
    epochs = arguments.epochs * net.epochs
    plan = recipes.load("digits").params.student.training.model_copy(
        update={"epochs": epochs} | ({"select_every": epochs} if net.last else {})
    )

    def job() -> training.Job:
        spec = net.objective
        return training.Job(
            models.build(small(found, net.size), seed, name),
            spec if isinstance(spec, Objective) else objectives.build(spec, name),
            found.split("train"), found.split("val"), threat_of(name, found), plan, derive(seed, name),
            Teacher(teacher) if teacher else None,
        )  # fmt: skip

    return train(arguments.out / "models" / f"{name}-{seed}", job, Compute("cpu", 1))
