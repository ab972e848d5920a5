"""A training step: ours beside the loop that people write, in turn, in one process. Prints the ratio of their seconds.

    python -m benchmarks.training_step                                   # all models, PGD-10 AT and RSLAD
    python -m benchmarks.training_step --models small_cnn --rounds 9

The textbook loop stands below, whole: ten steps of PGD by `loss.backward()`, the model in evaluation mode meanwhile,
images as they come, no layout, folding or cache. Both have the same model, images, batch, attack and optimizer, and
the allocator's settings of this process. One thread unless --threads says otherwise; images are noise, since time does
not depend on them.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from collections.abc import Callable
from typing import Any

import torch
from benchmarks.rounds import Noise, clock_of, noise, train
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax

from robustdistill import models, objectives
from robustdistill.config import Training
from robustdistill.engine.devices import PRECISIONS, Compute, require_device
from robustdistill.machine import cores
from robustdistill.models import Classifier, ModelSpec
from robustdistill.objectives.types import Teacher
from robustdistill.threat import ThreatModel
from robustdistill.training import Job

EPS, STEPS = 8 / 255, 10
EPOCHS = 4  # of ours, in each round; the first and the last do not count
# name -> (model, shape of the images, examples in a step, steps in an epoch)
MODELS: dict[str, tuple[dict[str, Any], tuple[int, int, int], int, int]] = {
    "small_cnn": ({"name": "small_cnn", "size": "tiny"}, (1, 28, 28), 128, 4),
    "resnet18": ({"name": "resnet18"}, (3, 32, 32), 32, 1),
    "mobilenet_v2": ({"name": "mobilenet_v2"}, (3, 32, 32), 64, 1),
}
TEACHER = {"name": "small_cnn", "size": "tiny"}
Loss = Callable[[Tensor, Tensor], Tensor]  # of the student's logits and what they should be, summed


def spec(model: dict[str, Any], shape: tuple[int, int, int]) -> ModelSpec:
    return ModelSpec(model, shape, 10, 0.0, 1.0, (0.5,) * shape[0], (0.3,) * shape[0])


class Plain(nn.Module):
    """The same network without the layout that ours gives to images and weights."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.net = model.net.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.mean, self.std = model.mean, model.std

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net((x - self.mean) / self.std)
        return logits


def textbook_attack(model: nn.Module, x: Tensor, wanted: Tensor, loss: Loss) -> Tensor:
    """L-inf PGD from a random start, as in the public loops."""
    x_adv = (x + torch.empty_like(x).uniform_(-EPS, EPS)).clamp(0, 1)
    for _ in range(STEPS):
        x_adv.requires_grad_()
        model.zero_grad()
        loss(model(x_adv), wanted).backward()
        x_adv = x_adv.detach() + EPS / 4 * x_adv.grad.sign()  # type: ignore[union-attr]
        x_adv = torch.min(torch.max(x_adv, x - EPS), x + EPS).clamp(0, 1)
    return x_adv


def divergence(logits: Tensor, teacher: Tensor) -> Tensor:
    return kl_div(log_softmax(logits, 1), softmax(teacher, 1), reduction="sum")


def textbook_step(model: nn.Module, optimizer: Any, x: Tensor, y: Tensor, teacher: nn.Module | None) -> None:
    """PGD-AT, or RSLAD where there is a teacher."""
    if teacher is not None:
        with torch.no_grad():
            soft = teacher(x)
    model.eval()
    if teacher is None:
        x_adv = textbook_attack(model, x, y, lambda logits, labels: cross_entropy(logits, labels, reduction="sum"))
    else:
        x_adv = textbook_attack(model, x, soft, divergence)
    model.train()
    optimizer.zero_grad()
    if teacher is None:
        loss = cross_entropy(model(x_adv), y)
    else:
        loss = (5 / 6 * divergence(model(x_adv), soft) + 1 / 6 * divergence(model(x), soft)) / len(x)
    loss.backward()
    optimizer.step()


def textbook(name: str, data: Noise, teacher: Classifier | None, clock: Callable[[], float]) -> float:
    """Seconds of one epoch, the one after the first."""
    model, shape, batch, steps = MODELS[name]
    net = Plain(models.build(spec(model, shape), 0, "student"))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    x, y = torch.from_numpy(data.x).float() / 255, torch.from_numpy(data.y)
    seconds = 0.0
    for _ in range(2):
        began = clock()
        for at in range(0, batch * steps, batch):
            textbook_step(net, optimizer, x[at : at + batch], y[at : at + batch], teacher)
        seconds = clock() - began
    return seconds


def job(name: str, data: Noise, teacher: Classifier | None) -> Job:
    model, shape, batch, _ = MODELS[name]
    attack = {"name": "pgd", "steps": STEPS, "step": 0.25}
    return Job(
        model=models.build(spec(model, shape), 0, "student"),
        objective=objectives.build({"name": "pgd_at" if teacher is None else "rslad", "attack": attack}),
        train=data,
        val=noise(8, shape),
        threat=ThreatModel("linf", EPS),
        training=Training(epochs=EPOCHS, lr=0.1, batch=batch, select_every=EPOCHS),
        seed=0,
        teacher=None if teacher is None else Teacher(teacher),
    )


def compare(name: str, compute: Compute, rounds: int, *, taught: bool) -> dict[str, Any]:
    _, shape, batch, steps = MODELS[name]
    data, clock = noise(batch * steps, shape), clock_of(compute.device)
    ours, theirs = [], []
    for _ in range(rounds):
        teacher = models.build(spec(TEACHER, shape), 1, "teacher").eval() if taught else None
        ours.append(statistics.median(train(job(name, data, teacher), compute, clock).epochs))
        theirs.append(textbook(name, data, teacher, clock))
    ratios = sorted(b / a for a, b in zip(ours, theirs, strict=True))
    return {
        "ratio": round(statistics.median(ratios), 2),
        "ratios": [round(ratio, 2) for ratio in (ratios[0], ratios[-1])],
        "examples_per_second": {
            side: round(batch * steps / statistics.median(seconds), 1)
            for side, seconds in (("ours", ours), ("textbook", theirs))
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--rounds", type=int, default=5, help="of each side, in turn")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="auto", choices=PRECISIONS, help="of ours; the textbook's is float32")
    given = parser.parse_args()
    compute = Compute(require_device(given.device), given.threads, given.precision)
    torch.set_num_threads(given.threads)
    found: dict[str, Any] = {"machine": {"processor": platform.machine(), "cores": cores(), "torch": torch.__version__}}
    for name in given.models:
        found[name] = {
            "pgd_at": compare(name, compute, given.rounds, taught=False),
            "rslad": compare(name, compute, given.rounds, taught=True),
        }
        print(json.dumps({name: found[name]}), flush=True)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
