"""A floor under the robust accuracy: what interval bounds certify, so that attacks and bounds check each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustdistill.attacks import Access
from robustdistill.judge.bounds.certify import certified
from robustdistill.judge.bounds.interval import Interval, NoBound
from robustdistill.judge.bounds.network import Network
from robustdistill.judge.health import Check
from robustdistill.judge.trial import Trial

__all__ = ["Bound", "Interval", "Network", "NoBound", "bound", "certified", "check"]


@dataclass(frozen=True)
class Bound:
    """certified [N]: no input of the threat model changes the right answer. None where there is no bound: `reason`."""

    certified: NDArray[np.bool_] | None
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        if self.certified is None:
            return {"method": "ibp", "certified": None, "reason": self.reason}
        return {"method": "ibp", "certified": float(self.certified.mean()), "n": len(self.certified), "reason": ""}


def bound(trial: Trial) -> Bound:
    """Of every judged example; never raises for a model that has none."""
    if trial.subject.access < Access.GRADIENT:
        return Bound(None, "the weights are not at hand")
    try:
        return Bound(certified(trial.subject.model, trial.sample.x, trial.sample.y, trial.threat))
    except NoBound as error:
        return Bound(None, str(error))


def check(trial: Trial, found: Bound) -> list[Check]:
    """IBP ≤ worst case ≤ each attack ≤ clean holds for each example, or an attack or the bound is wrong."""
    if found.certified is None:
        return []
    count = int((found.certified & ~trial.standing).sum())
    sentence = f"{count} examples that interval bounds certify were broken: the attack or the bound is wrong"
    return [Check("bound", count == 0, "error", float(count), 0.0, sentence)]
