"""The distillations that ask their teacher about x'. DGAD's script is AdaAD's, carried on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from benchmarks.parity.code import Code
from benchmarks.parity.compare import OWN, Case, Way, named
from benchmarks.parity.scene import BATCH, CLASSES, STEPS, Scene
from benchmarks.parity.source import Source
from torch import Tensor

ALPHA = 0.7  # the scripts have 1: the other term has then no weight, and nothing of it would be seen


def _adaad(method: str, **options: Any) -> Any:
    """A method of the script that AdaAD's authors wrote and DGAD's carried on."""

    def step(code: Code, given: Scene) -> Tensor:
        code.take("AT_helper.py", "adaad_inner_loss")
        attack = {"step_size": 2, "epsilon": 8, "num_steps": STEPS}
        return code.step(
            "main.py", "trainloader", "train", net=given.student, teacher_net=given.teacher, inputs=given.x,
            targets=given.y, optimizer=given.optimizer, use_cuda=False, device="cpu", epoch=100,
            args=SimpleNamespace(method=method, dataset="CIFAR10", bs=BATCH, **attack, **options),
        )  # fmt: skip

    return step


def _saad(code: Code, given: Scene) -> Tensor:
    code.take("attacks.py", "saad_inner_loss")
    code.take("utils.py", "samplewise_kl_div", "samplewise_renyi_entropy")
    args = SimpleNamespace(igdm_alpha=1.0, epochs=200, gamma=1.0, beta=0.3, lambda_inner=1.0)
    return _of_saad(code, given, "saad.py", args)


def _igdm(code: Code, given: Scene) -> Tensor:
    code.take("attacks.py", "adaad_inner_loss")
    code.take("igdm.py", "criterion_kl")
    return _of_saad(code, given, "igdm.py", SimpleNamespace(igdm_alpha=1.0))


def _of_saad(code: Code, given: Scene, path: str, args: Any) -> Tensor:
    return code.step(
        path, "trainloader", student=given.student, teacher=given.teacher, X=given.x, y=given.y,
        optimizer=given.optimizer, epoch=100, args=args,
    )  # fmt: skip


_ADAAD_CODE = Source("boyellow/AdaAD", "9e5c6e5ff73052af196065439517562d37eff6e6", {
    "main.py": "72bf35582cb394e56e9a36e3ca45821a4224da3bed11ebca995568db6d67282c",
    "AT_helper.py": "c2f8f4235365e4f5ff66d9978c561038aad4e0d610ad3220f08473da795c7cd2",
})  # fmt: skip
_DGAD_CODE = Source("kunsaram01/DGAD", "a0329c860570484e0835108985954f30bbb374ee", {
    "main.py": "8280f4f55c0e7667f92df33fc20d5f5f2bd5571e26b892fd5e5a1f7c11b15e1b",
    "AT_helper.py": "2c0d7c03b178637763070093634e316fd244d132c31faba10c7da0a223ca1478",
})  # fmt: skip
_SAAD_CODE = Source("HongsinLee/saad", "295121c5d2eed827b5b2d6aa42307de809bdfada", {
    "saad.py": "2f4744aedb928d96e3b3bc5ec2c7e42991bcf6a9ded3c95a964ca45b1072a09e",
    "igdm.py": "354b538af99bf87ea9903e475b9927ec3a2f1c1cbb621cc3b534669c9b37f841",
    "attacks.py": "d69169fe8e031b91d5d3a5bfda11ff4569add267da4efd2f7c1292db60504e0b",
    "utils.py": "4bd4f0a99118be2a112c387a1e0c852e43e5cb2c0bd0aaee3ffe097cca55eab6",
})  # fmt: skip
_SWAPPED = Way(
    "own attack, eps 2/255, step 8/255", eps=2 / 255,
    attack={"base": {"name": "adaad", "attack": {"name": "pgd", "step": 4.0}}},
)  # fmt: skip

ADAAD = Case(
    "adaad", {"name": "adaad", "adversarial_share": ALPHA, "weight": 1 / CLASSES}, (_ADAAD_CODE,),
    _adaad("AdaAD", AdaAD_alpha=ALPHA),
)  # fmt: skip
ADAIAD = Case(
    "adaiad", {"name": "adaiad", "temperature": 30.0, "weight": ALPHA, "ce_weight": 1 - ALPHA}, (_ADAAD_CODE,),
    _adaad("AdaAD_with_IAD1", IAD_begin=60, IAD_alpha=ALPHA, IAD_beta=0.1, temp=30.0),
)  # fmt: skip
SAAD = Case("saad", {"name": "saad", "clean_weight": 0.3}, (_SAAD_CODE,), _saad, named("inputs_adv"))
IGDM = Case("igdm", {"name": "igdm"}, (_SAAD_CODE,), _igdm, named("inputs_adv"), ways=(OWN, _SWAPPED))
DGAD = Case("dgad", {"name": "dgad"}, (_DGAD_CODE,), _adaad("DGAD", alp="on", ALP_beta=1.0, model="resnet18"))
DGAD_MOBILENET = Case(
    "dgad_mobilenet", {"name": "dgad", "weight": 0.5}, (_DGAD_CODE,),
    _adaad("DGAD", alp="on", ALP_beta=1.0, model="mobilenetV2"),
)  # fmt: skip
