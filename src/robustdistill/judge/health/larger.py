"""Does the model fail as it must when eps grows?"""

from __future__ import annotations

from itertools import pairwise

from robustdistill.judge.curve import Curve
from robustdistill.judge.health.check import Check, limit

RISE = 0.02  # of accuracy with a larger eps (chance: the curve has few examples)
OVERWHELMED = 0.15  # accuracy above chance where every input can be turned into the same gray image


def monotone(curve: Curve) -> Check:
    values = [point.measured for point in curve.points if point.eps != curve.huge]  # that has a check of its own
    rise = max((later - earlier for earlier, later in pairwise(values)), default=0.0)
    rise = max(rise, 0.0)
    return limit("monotone", rise, RISE, f"accuracy rises by at most {rise:.1%} from one eps to the next larger one")


def overwhelmed(curve: Curve, classes: int) -> Check:
    above = max(0.0, curve.overwhelmed - 1 / classes)
    sentence = f"accuracy is {curve.overwhelmed:.1%} where the attacker may turn every input into the same one"
    return limit("large_eps", above, OVERWHELMED, sentence)
