"""LBGAT and PeerAiD: a second model is trained in the same step. Its weights count in ∇w beside the student's."""

from __future__ import annotations

from types import SimpleNamespace

from benchmarks.parity.code import Code
from benchmarks.parity.compare import Case
from benchmarks.parity.scene import CLASSES, EPS, STEP, STEPS, Scene
from benchmarks.parity.source import Source
from torch import Tensor, nn

from robustdistill.config import Spec
from robustdistill.objectives import Objective


def _lbgat(code: Code, given: Scene) -> Tensor:
    code.take("lbgat.py", "lbgat_loss")
    return code.call(
        "lbgat_loss", model=given.student, model_teacher=given.companion, x_natural=given.x, y=given.y,
        optimizer=given.optimizer, step_size=STEP, epsilon=EPS, perturb_steps=STEPS, beta=6.0,
    )  # fmt: skip


def _peeraid(code: Code, given: Scene) -> Tensor:
    return _peers(code, given, 0.1)


def _peeraid_apart(code: Code, given: Scene) -> Tensor:
    return _peers(code, given, 0.0)


def _peers(code: Code, given: Scene, gamma2: float) -> Tensor:
    code.take("attack_function.py", "LinfPeerAttack")
    attack = code.names["LinfPeerAttack"](given.student, EPS, STEP)
    weights = {"lamb1": 0, "lamb2": 1, "lamb3": 1, "gamma1": 1, "gamma2": gamma2, "re_kd_temperature": 1}
    return code.step(
        "main.py", "train_loader", "train_kd", loss="loss_total", inputs=given.x, targets=given.y, device="cpu",
        student_net=given.student, peer_net=given.companion, student_optimizer=given.optimizer,
        peer_optimizer=given.optimizer, adversary_student_training=attack, peer_criterion=nn.CrossEntropyLoss(),
        k_train=STEPS, T=5, args=SimpleNamespace(debug_mode=False, temperature=5, **weights), peer_train_loss=0,
        student_train_loss=0, total=0, correct=0, total_student=0, correct_student=0,
    )  # fmt: skip


def _companion(objective: Objective, given: Scene) -> None:
    objective.companion = given.companion


LBGAT = Case(
    "lbgat", {"name": "lbgat"},
    (Source("dvlab-research/LBGAT", "f7f33f0ea7d2b1ee89741144604b29624057f44a", {
        "lbgat.py": "eb5ce5904300c328d1131997e150996f908d4570ef08dbc9658d4db6cccc090c",
    }),), _lbgat, ready=_companion,
)  # fmt: skip
_PEERAID_CODE = Source("jaewonalive/PeerAiD", "cd12e9210ceb43a68c104f3c4ca281ea991880b8", {
    "attack_function.py": "a988e5ee23e18441a09a9f54aec75c81560298cb82a935bae6d76bdaa7c77db4",
    "main.py": "798373b1c3d1072dca3abd486ebf352f2c2f99049baf285537e2aaca11ca44a5",
})  # fmt: skip
_PEERAID: Spec = {"name": "peeraid", "weight": 1 / CLASSES, "self_weight": 1 / CLASSES}
PEERAID = Case(
    "peeraid", _PEERAID | {"peer_weight": 0.1 / CLASSES}, (_PEERAID_CODE,), _peeraid, ready=_companion,
)  # fmt: skip
PEERAID_APART = Case(
    "peeraid_apart", _PEERAID | {"peer_weight": 0.0}, (_PEERAID_CODE,), _peeraid_apart, ready=_companion,
)  # fmt: skip
