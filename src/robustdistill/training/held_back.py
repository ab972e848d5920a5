"""Few labels: those of a share of the training examples are withheld. The teacher labels these examples, and whoever
has no teacher goes without them, so that student and control pay for the same labels.

Which ones is a function of seed and content, the same for every stage; a larger share withholds these and more.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from robustdistill.data.prepared import Split
from robustdistill.engine.devices import Compute
from robustdistill.models.spec import ModelSpec
from robustdistill.objectives.types import Teacher
from robustdistill.rng import Draws
from robustdistill.training.feed import Feed
from robustdistill.training.teacher_cache import ask

BATCH = 256


def chosen(split: Split, share: float, seed: int) -> np.ndarray:
    """[N] bool: whose labels are withheld."""
    index = torch.from_numpy(split.id)
    draws = Draws(seed).fold("held back")
    return (draws.uniform(torch.empty(len(index), 1), index, "label")[:, 0] < share).numpy()


def left_out(split: Split, hidden: np.ndarray) -> Split:
    """The examples that keep their labels."""
    return replace(split, x=split.x[~hidden], y=split.y[~hidden], id=split.id[~hidden])


def labelled(split: Split, hidden: np.ndarray, teacher: Teacher, spec: ModelSpec, compute: Compute) -> Split:
    """All examples, the hidden ones as what the teacher takes them for, unmoved. spec: of whoever learns from it."""
    if not hidden.any():
        return split
    unknown = left_out(split, ~hidden)
    teacher.model.to(compute.device)
    batches = ask(teacher, Feed(unknown, spec, compute.device), -(-len(unknown) // BATCH), compute)
    y = split.y.copy()
    y[hidden] = torch.cat([logits.argmax(dim=1) for logits in batches]).numpy()
    return replace(split, y=y)
