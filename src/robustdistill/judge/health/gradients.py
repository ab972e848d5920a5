"""Do the gradients lead anywhere?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from robustdistill.attacks import TorchTarget
from robustdistill.attacks.goals import cross_entropy
from robustdistill.judge.health.check import Check, limit, rows_of
from robustdistill.judge.progress import Heard
from robustdistill.judge.subject import BATCH
from robustdistill.judge.trial import Trial

WEAKER = 0.01  # by which an iterative attack may be weaker than a single step (chance)
FLAT = 0.05  # examples whose gradient is zero: attacks by gradient are blind there
TINY = 1e-30  # largest entry of a gradient that counts as zero


def flat(trial: Trial) -> Check:
    target, sample = Heard(TorchTarget(trial.attacked), trial.progress), trial.sample
    flat = []
    for begin in range(0, len(sample), BATCH):
        positions = np.arange(begin, min(begin + BATCH, len(sample)))
        largest = target.gradient(sample.batch(positions), cross_entropy).flatten(1).abs().amax(1)
        flat.append(((largest <= TINY) | ~torch.isfinite(largest)).cpu().numpy())
    share = float(np.concatenate(flat).mean())
    sentence = (
        f"the gradient of the loss vanishes on {share:.1%} of the examples, so attacks by gradient are blind there"
    )
    return limit("zero_gradients", share, FLAT, sentence)


def iterative(trial: Trial) -> Iterator[Check]:
    single, iterative = rows_of(trial, "single"), rows_of(trial, "iterative")
    if single and iterative:
        one, many = (min(float(row.right.mean()) for row in rows) for rows in (single, iterative))
        sentence = f"many small steps leave {many:.1%} standing, a single step {one:.1%}"
        yield limit("iterative_stronger", many - one, WEAKER, sentence)
