"""What an attack drives up: a function (logits [B, C], batch) -> [B], larger is worse for the model."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from robustdistill.attacks.kl import kl
from robustdistill.attacks.types import Batch, Goal

GoalName = Literal["ce", "margin", "kl"]
REFERENCE = "reference"  # key of Batch.context: the logits that "kl" moves away from


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


GOALS: dict[str, Goal] = {"ce": cross_entropy, "margin": margin, "kl": kl_from_reference}


def is_wrong(logits: Tensor, y: Tensor) -> Tensor:
    """[B] bool: the prediction differs from y. A NaN counts as wrong, so that a broken model never looks robust."""
    return (logits.argmax(dim=1) != y) | torch.isnan(logits).any(dim=1)
