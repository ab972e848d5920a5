"""TRADES, with and without AWP, MART, the two fast ones, and ADR."""

from __future__ import annotations

import copy
from collections import OrderedDict
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import torch
from benchmarks.parity.code import Code
from benchmarks.parity.compare import IN_TRAINING_MODE, OWN, Case
from benchmarks.parity.scene import CLASSES, EPS, STEP, STEPS, Scene
from benchmarks.parity.source import Source
from torch import Tensor, nn

from robustdistill.objectives import Objective

BETA = 6.0
GAMMA = 0.005


def _trades(code: Code, given: Scene) -> Tensor:
    code.take("trades.py", "trades_loss")
    return code.call("trades_loss", **_arguments(given))


def _mart(code: Code, given: Scene) -> Tensor:
    code.take("mart.py", "mart_loss")
    return code.call("mart_loss", **_arguments(given))


def _arguments(given: Scene) -> dict[str, Any]:
    return {
        "model": given.student, "x_natural": given.x, "y": given.y, "optimizer": given.optimizer, "step_size": STEP,
        "epsilon": EPS, "perturb_steps": STEPS, "beta": BETA,
    }  # fmt: skip


def _trades_awp(code: Code, given: Scene) -> Tensor:
    code.names["OrderedDict"] = OrderedDict
    code.take("trades_AWP/utils_awp.py", "EPS", "diff_in_weights", "add_into_weights", "TradesAWP")
    code.take("trades_AWP/train_trades_cifar.py", "perturb_input")
    proxy = copy.deepcopy(given.student)
    awp = code.names["TradesAWP"](given.student, proxy, torch.optim.SGD(proxy.parameters(), lr=0.01), GAMMA)
    return code.step(
        "trades_AWP/train_trades_cifar.py", "train_loader", "train", data=given.x, target=given.y, model=given.student,
        optimizer=given.optimizer, awp_adversary=awp, epoch=100, step_size=STEP, epsilon=EPS, device="cpu",
        args=SimpleNamespace(num_steps=STEPS, norm="l_inf", awp_warmup=10, beta=BETA),
        accuracy=lambda *_, **__: (torch.zeros(1), torch.zeros(1)), losses=MagicMock(), top1=MagicMock(),
    )  # fmt: skip


def _channels(value: float) -> Tensor:
    return torch.full((3, 1, 1), value)


def _fgsm_rs(code: Code, given: Scene) -> Tensor:
    code.take("CIFAR10/utils.py", "clamp")
    return code.step(
        "CIFAR10/train_fgsm.py", "train_loader", "main", X=given.x, y=given.y, i=0, model=given.student,
        opt=given.optimizer, criterion=nn.CrossEntropyLoss(), epsilon=_channels(EPS), alpha=_channels(1.25 * EPS),
        lower_limit=_channels(0.0), upper_limit=_channels(1.0), args=SimpleNamespace(delta_init="random"),
        amp=SimpleNamespace(scale_loss=lambda loss, _: nullcontext(loss)),
    )  # fmt: skip


def _n_fgsm(code: Code, given: Scene) -> Tensor:
    code.take("utils/attack_utils.py", "AttackUtils")
    return code.step(
        "train.py", "train_loader", "main", X=given.x, y=given.y, model=given.student, opt=given.optimizer,
        epsilon=_channels(EPS), alpha=_channels(EPS), args=SimpleNamespace(dataset="CIFAR10", unif=2.0, clip=-1),
        attack_utils=code.names["AttackUtils"](_channels(0.0), _channels(1.0), _channels(1.0)),
    )  # fmt: skip


def _adr(code: Code, given: Scene) -> Tensor:
    code.take("src/util/utils.py", "cosine_scheduler")
    code.take("src/adr.py", "ADR")
    code.take("src/util/pgd_attack.py", "PGD")
    code.names["self"] = SimpleNamespace(
        aux_loader=None, device="cpu", adv_train_mode="PGD-AT",
        adr=code.names["ADR"](CLASSES, 200, 1, 2.0, 2.5, 0.7, 0.95),
        adv_attacker=code.names["PGD"](eps=8, alpha=2, steps=STEPS),
        model_ema=SimpleNamespace(module=given.companion.eval()),
    )  # fmt: skip
    return code.step(
        "src/advTrainer.py", "train_loader", "_train_one_epoch", data=(given.x, given.y), idx=0,
        global_step=100, model=given.student, optimizer=given.optimizer, cls_loss_fn=nn.CrossEntropyLoss(),
        AWP=type("AWP", (), {}),
    )  # fmt: skip


def _average(objective: Objective, given: Scene) -> None:
    objective.average = given.companion


_TRADES_CODE = Source("yaodongyu/TRADES", "6e8e11b7c281371c2f027ffadfbaea80361f09de", {
    "trades.py": "6f9ffac27d33b1c3a3634d7b390b9ae1a724781de84e4256c49f037b6f8a8567",
})  # fmt: skip

TRADES = Case("trades", {"name": "trades", "beta": BETA}, (_TRADES_CODE,), _trades)
TRADES_EDGE = Case("trades_edge", {"name": "trades", "beta": BETA}, (_TRADES_CODE,), _trades, edge=True)
TRADES_AWP = Case(
    "trades_awp", {"name": "trades", "beta": BETA},
    (Source("csdongxian/AWP", "a7acf5d842fccf1bbb4b91644352ce157d370a26", {
        "trades_AWP/utils_awp.py": "44c62fef531a0d56fe67d1da57c0ce19554d591acceac6ecdc948fa74b3a5630",
        "trades_AWP/train_trades_cifar.py": "ec686b2221a72158807888815ff529b7a4598970c0084a5324ab18294ea6f42d",
    }),), _trades_awp, awp=GAMMA,
)  # fmt: skip
MART = Case(
    "mart", {"name": "mart", "weight": BETA},
    (Source("YisenWang/MART", "2d83e17b381dd2ee52223695e517bf6d5ff09c2c", {
        "mart.py": "58f159bf2240ac24b0f2e765f00dfb8581d1d9c56381dd52af380d791d60fb17",
    }),), _mart,
)  # fmt: skip
FGSM_RS = Case(
    "fgsm_rs", {"name": "fgsm_rs"},
    (Source("locuslab/fast_adversarial", "54f728755e71857b632882ba6d6cef22f56e2172", {
        "CIFAR10/train_fgsm.py": "123fd04dd3c615fb6e44ca73099bb3a8d6d51371d44bebb9a1aa8093e1a14cfd",
        "CIFAR10/utils.py": "4e964f384c88386afb1fc033f067c56240b3cc7dd8a165c17fb6db5dfd106fea",
    }),), _fgsm_rs, ways=(OWN, IN_TRAINING_MODE),
)  # fmt: skip
N_FGSM = Case(
    "n_fgsm", {"name": "n_fgsm"},
    (Source("pdejorge/N-FGSM", "0a9e4f040b89a4bcd85763a34dea7866416927a2", {
        "train.py": "3c819dd416ab7b529bf081992f7ca48fbfc2dd33840f33d63a054bfad1e6f6b4",
        "utils/attack_utils.py": "39f97c45a326ab9af4b2d25645af34991a2ec24afb81f7968d6272c8a46892d3",
    }),), _n_fgsm, ways=(OWN, IN_TRAINING_MODE),
)  # fmt: skip
ADR = Case(
    "adr", {"name": "adr"},
    (Source("yuyuwu5/ADR", "515da0e0373f9d3de2325ad970f1f9d7e5cdcd3e", {
        "src/adr.py": "88f92749ff34283c5b66bfe9eb3b476f7e2e780085ff90f45b8339790eb9a55c",
        "src/advTrainer.py": "a93cef66710046d694ff2bb9493222400de887a5bb9fb23d1938b2ee5542802e",
        "src/util/pgd_attack.py": "ddf602fa1845caf0340df9d3e319ee401558639d8a314626175034123b34a8e9",
        "src/util/utils.py": "88cf9c8edd0a8bf642f4884e622388270fb46cb61c948fc0a9d7179fa591edd6",
    }),), _adr, ready=_average, ways=(OWN, IN_TRAINING_MODE),
)  # fmt: skip
