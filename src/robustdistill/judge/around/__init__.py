"""What surrounds the robust accuracy: shown beside it, and no part of any decision."""

from __future__ import annotations

from typing import Any

import numpy as np

from robustdistill.attacks import Access, TorchTarget
from robustdistill.judge.around import calibration, corruptions, minimal, threats
from robustdistill.judge.progress import Heard
from robustdistill.judge.trial import Trial
from robustdistill.rng import Draws

CORRUPTED, SCREENED, MEASURED = 200, 100, 50  # examples of the sample, at most; their number stands in each block

__all__ = ["around"]


def around(trial: Trial) -> dict[str, Any]:
    """JSON blocks by name: those that the subject's access and the shape of its inputs allow."""
    subject, draws = trial.subject, Draws(trial.seed).fold("judge/around")

    def some(n: int) -> Any:
        chosen = draws.choice(len(trial.sample), min(n, len(trial.sample)), "examples").astype(np.int64)
        return trial.sample.batch(chosen)

    found: dict[str, Any] = {"calibration": calibration.block(trial)}
    if len(subject.shape) == 3:
        found["corruptions"] = corruptions.block(subject, some(CORRUPTED), draws)
    if subject.access == Access.GRADIENT:
        target = Heard(TorchTarget(subject.model), trial.progress)
        found["threats"] = threats.block(subject, target, some(SCREENED), trial.threat, draws)
        found["nearest"] = minimal.block(target, some(MEASURED), trial.threat, draws)
    return found
