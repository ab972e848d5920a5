"""Whether confidence means anything: on clean inputs, and on the worst inputs that the attacks found."""

from __future__ import annotations

from typing import Any

from robustdistill.judge import metrics
from robustdistill.judge.trial import Trial


def block(trial: Trial) -> dict[str, Any]:
    """ECE and Brier score (judge.metrics) of what is served, "clean" and "attacked"; n examples."""
    labels = trial.sample.labels
    figures = {
        name: metrics.calibration(labels, metrics.softmax(trial.subject.served(x)))
        for name, x in (("clean", trial.sample.x), ("attacked", trial.worst))
    }
    return {"n": len(labels), **figures}
