"""What an attack drives up: a function (logits [B, C], batch) -> [B], larger is worse for the model."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from robustdistill.attacks.kl import kl
from robustdistill.attacks.types import Batch, Goal
from robustdistill.errors import BadInput

GoalName = Literal["ce", "margin", "kl", "dlr"]
REFERENCE = "reference"  # key of Batch.context: the logits that "kl" moves away from
TARGET = "target"  # key of Batch.context: the class [B] that a targeted goal moves to
TINY = 1e-12  # keeps the quotient of DLR finite where the largest logits tie


def cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
    """−log softmax(z)_y."""
    return F.cross_entropy(logits, batch.y, reduction="none")


def margin(logits: Tensor, batch: Batch) -> Tensor:
    """max_{k≠y} z_k − z_y: above 0 exactly where the model errs, and never flat where softmax saturates
    (Carlini and Wagner 2017, f_6)."""
    y = batch.y[:, None]
    others = logits.scatter(1, y, float("-inf"))
    return others.max(dim=1).values - logits.gather(1, y).squeeze(1)


def kl_from_reference(logits: Tensor, batch: Batch) -> Tensor:
    """KL(softmax(reference) ‖ softmax(z)) with the logits of batch.context["reference"] (TRADES, RSLAD)."""
    reference = batch.get(REFERENCE)
    if reference is None:
        raise ValueError(f"the goal 'kl' needs Batch.context['{REFERENCE}']")
    return kl(reference, logits)


def dlr(logits: Tensor, batch: Batch) -> Tensor:
    """(max_{k≠y} z_k − z_y) / (z_(1) − z_(3)), z_(i) the i-th largest: the margin, blind to shift and scale of the
    logits (Croce and Hein 2020, eq. 6). Raises BadInput below 3 classes."""
    _require_classes("dlr", logits, 3, "margin")
    largest = logits.topk(3, dim=1).values
    return margin(logits, batch) / (largest[:, 0] - largest[:, 2] + TINY)


def targeted_margin(logits: Tensor, batch: Batch) -> Tensor:
    """z_t − z_y with the class t of batch.context["target"]."""
    target = batch.get(TARGET)
    if target is None:
        raise ValueError(f"a targeted goal needs Batch.context['{TARGET}']")
    towards, own = logits.gather(1, torch.stack([target, batch.y], dim=1)).unbind(1)
    return towards - own


def targeted_dlr(logits: Tensor, batch: Batch) -> Tensor:
    """(z_t − z_y) / (z_(1) − (z_(3) + z_(4)) / 2) (Croce and Hein 2020, eq. 7). Raises BadInput below 4 classes."""
    _require_classes("targeted-dlr", logits, 4, "targeted-margin")
    largest = logits.topk(4, dim=1).values
    return targeted_margin(logits, batch) / (largest[:, 0] - (largest[:, 2] + largest[:, 3]) / 2 + TINY)


def likely_wrong(logits: Tensor, y: Tensor, count: int) -> Tensor:
    """The `count` wrong classes (all, if fewer) with the largest logits, likeliest first: int64 [B, at most C − 1]."""
    count = min(count, logits.shape[1] - 1)
    return logits.scatter(1, y[:, None], float("-inf")).topk(count, dim=1).indices


def _require_classes(name: str, logits: Tensor, least: int, instead: str) -> None:
    if logits.shape[1] < least:
        raise BadInput(
            f"the goal {name!r} needs at least {least} classes, the model has {logits.shape[1]}",
            fix=f"goal: {instead}",
        )


GOALS: dict[str, Goal] = {"ce": cross_entropy, "margin": margin, "kl": kl_from_reference, "dlr": dlr}
TARGETED: dict[str, Goal] = {"targeted-dlr": targeted_dlr, "targeted-margin": targeted_margin}  # need a target class


def is_wrong(logits: Tensor, y: Tensor) -> Tensor:
    """[B] bool: the prediction differs from y. A NaN counts as wrong, so that a broken model never looks robust."""
    return (logits.argmax(dim=1) != y) | torch.isnan(logits).any(dim=1)
