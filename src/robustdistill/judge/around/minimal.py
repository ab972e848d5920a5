"""How far the nearest wrong input is, by FAB (Croce and Hein 2020b): an upper bound of the true distance."""

from __future__ import annotations

from typing import Any

import numpy as np

from robustdistill.attacks import Batch, Target
from robustdistill.attacks.ball import ball
from robustdistill.attacks.fab import FAB
from robustdistill.rng import Draws
from robustdistill.threat import ThreatModel

STEPS, TARGETS = 20, 3


def block(target: Target, batch: Batch, threat: ThreatModel, draws: Draws) -> dict[str, Any]:
    """The median over n examples, those that are wrong without an attack at 0; None where FAB finds too few."""
    attack = FAB(FAB.Config(steps=STEPS, targets=TARGETS))
    distance = attack.nearest(target, batch, ball(threat), draws)[1].cpu().numpy()
    median = float(np.median(distance))
    found = int(np.isfinite(distance).sum())
    return {"n": len(distance), "found": found, "norm": threat.norm, "median": median if np.isfinite(median) else None}
