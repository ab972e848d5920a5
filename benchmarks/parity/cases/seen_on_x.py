"""The distillations that ask their teacher about x."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from benchmarks.parity.code import Code
from benchmarks.parity.compare import EPOCH, IN_TRAINING_MODE, OWN, Case
from benchmarks.parity.scene import CLASSES, EPS, Scene
from benchmarks.parity.source import Source
from torch import Tensor

ALPHA = 0.7  # the scripts have 1: the label term has then no weight, and nothing of it would be seen


def _ard(code: Code, given: Scene) -> Tensor:
    code.take("main.py", "AttackPGD", "config", "KL_loss", "XENT_loss")
    args = SimpleNamespace(alpha=ALPHA, temp=30.0)
    return _attacked(code, given, "main.py", "config", args=args)


def _iad(code: Code, given: Scene) -> Tensor:
    code.take("IAD-I.py", "AttackPGD", "config_train", "KL_loss", "XENT_loss")
    args = SimpleNamespace(alpha=ALPHA, temp=1.0, begin=60, beta=0.1)
    return _attacked(code, given, "IAD-I.py", "config_train", args=args, epoch=100)


def _attacked(code: Code, given: Scene, path: str, config: str, **names: Any) -> Tensor:
    net = code.names["AttackPGD"](given.student, code.names[config]).train()
    return code.step(
        path, "iterator", "train", net=net, basic_net=given.student, teacher_net=given.teacher, inputs=given.x,
        targets=given.y, optimizer=given.optimizer, device="cpu", **names,
    )  # fmt: skip


def _rslad(code: Code, given: Scene) -> Tensor:
    code.take("rslad_loss.py", "rslad_inner_loss")
    code.take("resnet18_rslad_cifar10.py", "kl_loss")
    return _scripted(code, given, "resnet18_rslad_cifar10.py")


def _absld(temperatures: Tensor) -> Any:
    """temperatures: [2, C], under attack and clean."""

    def step(code: Code, given: Scene) -> Tensor:
        code.take("absld_loss.py", "absld_inner_loss")
        code.take("resnet18_absld_cifar10.py", "kl_loss", "ce_loss")
        adversarial, clean = temperatures
        return _scripted(
            code, given, "resnet18_absld_cifar10.py", class_labels_temp_adv=adversarial, class_labels_temp_nat=clean,
            class_labels_total_loss_adv=torch.zeros(CLASSES), class_labels_total_loss_nat=torch.zeros(CLASSES),
        )  # fmt: skip

    return step


def _temperatures(values: Tensor) -> Any:
    def ready(objective: Any, given: Scene) -> None:
        objective.temperatures.copy_(values)
        objective.epoch.fill_(EPOCH)

    return ready


def _scripted(code: Code, given: Scene, path: str, **names: Any) -> Tensor:
    return code.step(
        path, "trainloader", student=given.student, teacher=given.teacher, train_batch_data=given.x,
        train_batch_labels=given.y, optimizer=given.optimizer, epsilon=EPS, **names,
    )  # fmt: skip


_ABSLD_CODE = Source("zhaoshiji123/ABSLD", "7407c3ad226a1373c8a2af13bf3f6946e100ff84", {
    "absld_loss.py": "ea0841c755b43c75e585071db1ed8e20c1a12e990ac4c6344b9731adbdfc3b81",
    "resnet18_absld_cifar10.py": "0075616d55822b164796230c750b729b7a818901d71ff78c6df87c2bd878100a",
})  # fmt: skip
_EVEN = torch.ones(2, CLASSES).double()
# Products of the two stay in the range of the paper as well.
_UNEVEN = torch.tensor([[0.6 + 0.12 * k for k in range(CLASSES)], [1.5 - 0.08 * k for k in range(CLASSES)]]).double()

ARD = Case(
    "ard", {"name": "ard", "temperature": 30.0, "weight": ALPHA / CLASSES, "ce_weight": 1 - ALPHA},
    (Source("goldblum/AdversariallyRobustDistillation", "779ade36d612bddb0a5a705fdd74efe7571a1381", {
        "main.py": "f2f8dd3a05ebf0ef250ba4a10f338fbe4a9d23e6b4f10c3cac7f0b9df36e84d4",
    }),), _ard, ways=(OWN, IN_TRAINING_MODE),
)  # fmt: skip
RSLAD = Case(
    "rslad", {"name": "rslad", "weight": 1 / CLASSES},
    (Source("zibojia/RSLAD", "c40e04f6c4edcd87431d0250b168d503b1293745", {
        "rslad_loss.py": "0f7c4e8bcaacc328c6085805db7a324bd2dccc3eb1d9beb2f7a6944a034aaf68",
        "resnet18_rslad_cifar10.py": "d73e37326f8bb69bb8a3149d1fb8ee296d24533c544398e10898f403e2fc01f9",
    }),), _rslad,
)  # fmt: skip
IAD = Case(
    "iad", {"name": "iad", "weight": ALPHA, "ce_weight": 1 - ALPHA},
    (Source("ZFancy/IAD", "a8091a8c7552cef43d8f3f28085426cb786ce9d3", {
        "IAD-I.py": "f63f71d778ef7f42635c773e639330607e46865611df619ed0c54d4f1d3c96da",
    }),), _iad, ways=(OWN, IN_TRAINING_MODE),
)  # fmt: skip
ABSLD = Case(
    "absld", {"name": "absld", "weight": 1 / CLASSES}, (_ABSLD_CODE,), _absld(_EVEN), ready=_temperatures(_EVEN)
)
ABSLD_LATER = Case(
    "absld_later", {"name": "absld", "weight": 1 / CLASSES}, (_ABSLD_CODE,), _absld(_UNEVEN),
    ready=_temperatures(_UNEVEN),
)  # fmt: skip
ABSLD_PRODUCT = Case(
    "absld_product", {"name": "absld", "weight": 1 / CLASSES}, (_ABSLD_CODE,), _absld(_UNEVEN),
    ready=_temperatures(_UNEVEN.prod(dim=0).expand(2, -1)),
)  # fmt: skip
