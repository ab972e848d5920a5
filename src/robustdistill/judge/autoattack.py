"""AutoAttack (Croce and Hein 2020) by the parts of pyautoattack, on the examples that nothing before has broken.

The parts are called one by one: so they run only where needed, each finished piece survives a crash, and the package's
check for dynamic defences is left out, which sets `sys.settrace` and with it ends debuggers and coverage. Its other
warnings are kept. Where a part cannot run (targeted DLR needs 4 classes, DLR 3, Square an image) another one stands in,
and the result is not called AutoAttack.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pyautoattack import checks
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from pyautoattack.fab_pt import FABAttack_PT
from pyautoattack.square import SquareAttack
from torch import Tensor, nn

from robustdistill.attacks.ball import ball
from robustdistill.errors import BadInput
from robustdistill.rng import derive, seeded
from robustdistill.threat import ThreatModel

STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")
RAND = ("apgd-ce", "apgd-dlr")
ITERATIONS, QUERIES, TARGETS, EOT = 100, 5000, 9, 20  # of the version "standard"; EOT of "rand"
QUICK_QUERIES = 500  # of Square, for a quick look at a model that gives no gradients
SMALLEST_L2_SQUARE = 5  # pixels of the shorter edge: Square's first pattern under L2 has h // 5 tiles


@dataclass(frozen=True)
class Suite:
    """Which parts run, and the name under which the result is reported. queries: of Square, None for QUERIES."""

    name: str
    parts: tuple[str, ...]
    note: str = ""
    queries: int | None = None


def suite(version: Literal["standard", "rand"], threat: ThreatModel, classes: int, shape: tuple[int, ...]) -> Suite:
    """The parts that can run on this task; called "autoattack" only if they are those of the official version."""
    if version == "rand" and classes >= 3:
        return Suite("autoattack_rand", RAND, f"version rand: expectation over {EOT} transformations")
    directed = "apgd-t" if classes >= 4 else "apgd-dlr" if classes == 3 else "apgd-margin"
    square = _square_runs(threat, shape)
    parts = ("apgd-ce", directed, "fab-t", *(("square",) if square else ()))
    if parts == STANDARD:
        return Suite("autoattack", parts, f"version standard, {min(TARGETS, classes - 1)} target classes")
    why = [] if classes >= 4 else [f"{classes} classes are too few for the targeted DLR loss"]
    why += [] if square else [f"inputs of shape {list(shape)} are too small for Square"]
    return Suite("margin_apgd", parts, f"not AutoAttack: {' and '.join(why)}")


def black_box(threat: ThreatModel, shape: tuple[int, ...], *, quick: bool = False) -> Suite:
    """Square alone, for a model that gives no gradients; quick: by few queries, which its name says. Raises BadInput
    where it cannot run."""
    if not _square_runs(threat, shape):
        raise BadInput(f"inputs of shape {list(shape)} are too small for Square", fix="give the weights too: --twin")
    queries = QUICK_QUERIES if quick else QUERIES
    name = f"square-{queries}" if quick else "square"
    return Suite(name, ("square",), f"black box: {queries} queries of scores for an example", queries)


def _square_runs(threat: ThreatModel, shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and (threat.norm == "linf" or min(shape[1:]) >= SMALLEST_L2_SQUARE)


Served = Callable[[Tensor], NDArray[np.float32]]
Heard = Callable[[int], None]


class _UnitBox(nn.Module):
    """The model as a function of inputs in [0, 1], which is where the package clamps to.

    served: answers where no gradient is asked (Square, and half of FAB): the exported file does so in less time.
    heard: is told of each question how many examples it is about.
    """

    def __init__(self, model: nn.Module, served: Served | None, heard: Heard, low: float, high: float) -> None:
        super().__init__()
        self.model, self.served, self.heard, self.low, self.span = model, served, heard, low, high - low

    def forward(self, u: Tensor) -> Tensor:
        self.heard(len(u))
        x = u.clone() if (self.low, self.span) == (0.0, 1.0) else self.low + u * self.span
        if self.served is not None and not torch.is_grad_enabled():
            return torch.from_numpy(self.served(x))
        if x.requires_grad:
            x.register_hook(_contiguous)  # type: ignore[no-untyped-call]
        logits: Tensor = self.model(x)
        return logits


def _contiguous(grad: Tensor) -> Tensor:
    """The package uses view() on gradients, and convolutions may return them channels last."""
    return grad.contiguous()


class AutoAttack:
    """The parts, set up for one model and one threat model. eps is scaled by the span of the box, as distances are.

    model: in eval mode, weights frozen. served: the same function without gradients, on the processor. heard: is told
    of each question to the model how many examples it is about: those of a piece that the parts have not broken.
    queries: of Square.
    """

    passes = 1  # for one gradient

    def __init__(
        self,
        model: nn.Module,
        threat: ThreatModel,
        classes: int,
        seed: int,
        *,
        device: str = "cpu",
        served: Served | None = None,
        heard: Heard = lambda _: None,
        queries: int | None = None,
    ) -> None:
        self.threat, self.classes, self.seed = threat, classes, seed
        self.queries = QUERIES if queries is None else queries
        self.model = _UnitBox(model, served, heard, threat.low, threat.high)
        self._span = threat.high - threat.low
        self._common: dict[str, Any] = {
            "norm": {"linf": "Linf", "l2": "L2"}[threat.norm],
            "eps": threat.eps / self._span,
            "device": device,
            "verbose": False,
        }

    def run(self, part: str, x: Tensor, y: Tensor, piece: int) -> tuple[Tensor, list[str]]:
        """x_adv [B, *shape] inside the threat (x itself where nothing was found) and the package's warnings.

        piece: the number of this batch; the random draws depend on it, on `part` and on the seed.
        """
        seed = derive(self.seed, "autoattack", part, piece)
        unit = self._to_unit(x)
        with _warnings() as (logger, heard), seeded(seed):
            found = self._part(part, seed, logger).perturb(unit, y).detach()
        moved = (found != unit).flatten(1).any(dim=1)
        x_adv = ball(self.threat).project(self.threat.low + found * self._span, x)
        return torch.where(moved.view(-1, *[1] * (x.dim() - 1)), x_adv, x), heard

    def cost(self, part: str) -> int:
        """Questions that `run` puts to the model at most, a handful more or less."""
        if part == "square":
            return self.queries
        each = min(TARGETS, self.classes - 1) if part in ("apgd-t", "fab-t") else 1
        return ITERATIONS * each * (2 if part == "fab-t" else self.passes)  # FAB: a gradient, and what came of the step

    def warnings(self, x: Tensor, y: Tensor, *, rand: bool) -> list[str]:
        """What the package has to say of the model before any attack: randomised? probabilities for logits?"""
        unit = self._to_unit(x)
        with _warnings() as (logger, heard):
            if not rand:
                checks.check_randomized(self.model, unit, y, bs=len(unit), logger=logger)
            checks.check_range_output(self.model, unit, logger=logger)
        return heard

    def _to_unit(self, x: Tensor) -> Tensor:
        return ((x - self.threat.low) / self._span).clamp(0.0, 1.0).contiguous()

    def _part(self, part: str, seed: int, logger: logging.Logger) -> Any:
        common = {**self._common, "seed": seed}
        targets = min(TARGETS, self.classes - 1)
        if part == "square":
            common |= {"n_queries": self.queries, "n_restarts": 1}
            return SquareAttack(self.model, p_init=0.8, resc_schedule=False, **common)
        if part == "fab-t":
            return FABAttack_PT(
                self.model, n_restarts=1, n_iter=ITERATIONS, targeted=True, n_target_classes=targets, **common
            )
        common |= {"n_iter": ITERATIONS, "n_restarts": 1, "rho": 0.75, "logger": logger}
        if part == "apgd-t":
            return APGDAttack_targeted(self.model, n_target_classes=targets, **common)
        attack = APGDAttack(self.model, loss="ce" if part == "apgd-ce" else "dlr", **common)
        if part == "apgd-margin":
            attack.dlr_loss = _margin  # the DLR loss without its scale, which needs a third class
        return attack


class RandAutoAttack(AutoAttack):
    """The version for randomised models: gradients averaged over 20 passes."""

    passes = EOT

    def _part(self, part: str, seed: int, logger: logging.Logger) -> Any:
        attack = super()._part(part, seed, logger)
        attack.eot_iter = self.passes
        return attack


def square_warning(before: float, after: float) -> list[str]:
    """What the package says where Square lowers the accuracy that its gradient attacks left."""
    with _warnings() as (logger, heard):
        checks.check_square_sr({"clean": 1.0, "gradient": before, "square": after}, logger=logger)
    return heard


def _margin(logits: Tensor, y: Tensor) -> Tensor:
    """max_{k≠y} z_k − z_y, [B]."""
    other = logits.scatter(1, y[:, None], -torch.inf).amax(1)
    return other - logits.gather(1, y[:, None]).squeeze(1)


@contextmanager
def _warnings() -> Iterator[tuple[logging.Logger, list[str]]]:
    """A logger of its own and the list of warnings it was given, each once and without the pointer to a manual."""
    heard: list[str] = []

    class Listen(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = record.getMessage().split(" See flags_doc")[0].strip()
            if record.levelno >= logging.WARNING and text not in heard:
                heard.append(text)

    logger = logging.Logger("autoattack", level=logging.WARNING)
    logger.addHandler(Listen())
    yield logger, heard
