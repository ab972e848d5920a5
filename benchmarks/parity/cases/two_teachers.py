"""MTARD and B-MTARD, at a step whose losses have already left their first values."""

from __future__ import annotations

from typing import Any

import torch
from benchmarks.parity.code import Code
from benchmarks.parity.compare import Case
from benchmarks.parity.scene import CLASSES, EPS, Scene
from benchmarks.parity.source import Source
from torch import Tensor

FIRST = (0.9, 0.2)  # of the two losses, clean and adversarial, in the first step; summed over classes
TEMPERATURES = (3.0, 2.0)  # of the two teachers, the undefended one first


def _mtard(code: Code, given: Scene) -> Tensor:
    path = "mtard/mtard_resnet18_cifar10.py"
    code.take(path, "kl_loss", "weight", "weight_learn_rate", "bert")
    return _step(code, given, path)


def _b_mtard(code: Code, given: Scene) -> Tensor:
    path = "resnet18_mtard_cifar10.py"
    names = ("kl_loss", "entropy_value", "weight", "weight_learn_rate", "temp_learn_rate", "temp_max", "temp_min")
    code.take(path, *names)
    return _step(code, given, path, temp_nat=TEMPERATURES[0], temp_adv=TEMPERATURES[1])


def _step(code: Code, given: Scene, path: str, **names: Any) -> Tensor:
    code.take("mtard/mtard_loss.py", "mtard_inner_loss_ce")
    return code.step(
        path, "trainloader", loss="total_loss", student=given.student, teacher=given.teacher,
        teacher_nat=given.clean_teacher, train_batch_data=given.x, train_batch_labels=given.y,
        optimizer=given.optimizer, epsilon=EPS, init_loss_nat=FIRST[0] / CLASSES, init_loss_adv=FIRST[1] / CLASSES,
        **names,
    )  # fmt: skip


def _ready(objective: Any, given: Scene) -> None:
    objective.first.copy_(torch.tensor(FIRST))
    if hasattr(objective, "temperatures"):
        objective.temperatures.copy_(torch.tensor(TEMPERATURES))


_MTARD_CODE = Source("zhaoshiji123/MTARD", "6480a1b40d6195e437a876639ea37b7b40c46a58", {
    "mtard/mtard_loss.py": "b590ade530c4e5a96b4cfe55bf89ddc1a0662fece171fc2fc4e70ae8af7c119b",
    "mtard/mtard_resnet18_cifar10.py": "ecc5493fb547b093cdc8768c517936302b6514cb8d519820d9db129cb85df114",
})  # fmt: skip
_B_MTARD_CODE = Source("zhaoshiji123/MTARD-extension", "93506d69de6b736eba98c9d55e6ccabb89d27dcd", {
    "resnet18_mtard_cifar10.py": "6de7ff6548f320b6e1f9ba40849e175a14e9e17f4d3eae402802784e883ebb08",
})  # fmt: skip

MTARD = Case("mtard", {"name": "mtard", "weight": 1 / CLASSES}, (_MTARD_CODE,), _mtard, ready=_ready)
BMTARD = Case(
    "b_mtard", {"name": "b_mtard", "weight": 1 / CLASSES}, (_B_MTARD_CODE, _MTARD_CODE), _b_mtard, ready=_ready
)
