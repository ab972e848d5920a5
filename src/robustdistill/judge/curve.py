"""Robust accuracy as a function of eps, by PGD on a part of the sample: how the model fails beyond its threat model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from robustdistill.attacks import Access, TorchTarget, build
from robustdistill.config import Spec
from robustdistill.judge.progress import Heard
from robustdistill.judge.trial import Trial
from robustdistill.rng import Draws
from robustdistill.threat import ThreatModel

ATTACK: Spec = {"name": "pgd", "steps": 20, "goal": "margin", "keep": "best"}
DOUBLINGS = 5  # of the largest eps asked for, at most: each costs an attack


class Point(NamedTuple):
    """accuracy: after this and every smaller eps of the curve. measured: after this attack alone."""

    factor: float
    eps: float
    accuracy: float
    n: int
    measured: float


class Curve(NamedTuple):
    """points by rising eps. overwhelmed: accuracy at the huge eps, whose ball around any input holds one gray image."""

    points: list[Point]
    overwhelmed: float
    n: int
    huge: float = math.inf


def curve(trial: Trial, factors: Sequence[float], n: int) -> Curve:
    """Attacks n examples of the sample (all, if fewer) at factor · eps, for each factor, and once at a huge eps.

    While more than chance (1 / classes) stands, eps is doubled, DOUBLINGS times at most; the huge eps is the last point
    where that was not enough.

    The ball at a smaller eps lies inside that at a larger one, so what broke an example once counts from there on.
    Without gradients there is no curve: no points, of 0 examples.
    """
    subject, sample, threat = trial.subject, trial.sample, trial.threat
    if subject.access < Access.GRADIENT:
        return Curve([], 0.0, 0)
    draws = Draws(trial.seed).fold("judge/curve")
    positions = draws.choice(len(sample), min(n, len(sample)), "examples").astype(np.int64)
    batch = sample.batch(positions)
    clean = subject.reply(batch.x, batch.y).right
    attack, target = build(ATTACK, "judge.curve"), Heard(TorchTarget(trial.attacked), trial.progress)

    def right(at: ThreatModel) -> NDArray[np.bool_]:
        return clean & subject.reply(attack(target, batch, at, draws), batch.y).right

    standing, points = clean.copy(), list[Point]()

    def note(factor: float, at: ThreatModel, measured: NDArray[np.bool_]) -> None:
        np.logical_and(standing, measured, out=standing)
        points.append(Point(factor, at.eps, float(standing.mean()), len(positions), float(measured.mean())))

    for factor in sorted(set(factors)):
        note(factor, at := threat.scaled(factor), right(at))
    huge = ThreatModel(threat.norm, _gray(threat, math.prod(sample.x.shape[1:])), threat.low, threat.high)
    overwhelmed, chance = right(huge), 1 / subject.classes
    for factor in (2.0**times * max(factors) for times in range(1, DOUBLINGS + 1) if factors):
        at = threat.scaled(factor)
        if at.eps >= huge.eps or standing.mean() <= chance:
            break
        note(factor, at, right(at))
    if points and points[-1].eps < huge.eps and standing.mean() > chance:
        note(huge.eps / threat.eps, huge, overwhelmed)
    return Curve(points, float(overwhelmed.mean()), len(positions), huge.eps)


def _gray(threat: ThreatModel, features: int) -> float:
    """The smallest eps whose ball around any input holds the centre of the box."""
    half = (threat.high - threat.low) / 2
    return half if threat.norm == "linf" else half * math.sqrt(features)
