"""Threats that the model may not have been trained for, by one attack each: a screen, not AutoAttack."""

from __future__ import annotations

import math
from typing import Any

from robustdistill.attacks import Batch, Target, build
from robustdistill.config import Spec
from robustdistill.judge.subject import Subject
from robustdistill.rng import Draws
from robustdistill.threat import ThreatModel

ATTACK: Spec = {"name": "pgd", "steps": 20, "goal": "margin", "keep": "best"}
LARGER = (1.5, 2.0)  # times eps


def others(threat: ThreatModel, features: int) -> list[ThreatModel]:
    """The same norm with a larger eps, and the other norm with a comparable one.

    A point drawn uniformly from the L-inf ball of eps has an L2 norm of about eps · √(features / 3); the box is left
    out of this.
    """
    ratio = math.sqrt(features / 3)
    norm, eps = ("l2", threat.eps * ratio) if threat.norm == "linf" else ("linf", threat.eps / ratio)
    larger = [threat.scaled(factor) for factor in LARGER]
    return [*larger, ThreatModel(norm, eps, threat.low, threat.high)]  # type: ignore[arg-type]


def block(subject: Subject, target: Target, batch: Batch, threat: ThreatModel, draws: Draws) -> dict[str, Any]:
    """Accuracy under each; the clean accuracy of the same n examples beside them."""
    attack, clean, rows = build(ATTACK, "judge.around"), subject.reply(batch.x, batch.y).right, []
    for at in others(threat, math.prod(batch.x.shape[1:])):
        right = clean & subject.reply(attack(target, batch, at, draws), batch.y).right
        rows.append({"norm": at.norm, "eps": at.eps, "accuracy": float(right.mean())})
    return {"n": len(batch.y), "attack": "pgd-20-margin, a screen", "clean": float(clean.mean()), "rows": rows}
