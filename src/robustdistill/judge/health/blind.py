"""What needs no gradient, or only more patience, must not find what the attacks missed: else these were misled."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from robustdistill.attacks import build
from robustdistill.attacks.ball import ball
from robustdistill.config import Spec
from robustdistill.gate.statistics import wilson
from robustdistill.judge.health.check import Check, limit, rows_of
from robustdistill.judge.progress import Heard
from robustdistill.judge.trial import Trial
from robustdistill.rng import Draws

UNSEEN = 0.01  # lower 95 % bound of what only attacks without gradients broke: below one point it changes no decision
WEAKER = 0.01  # broken by plain noise: a boundary that noise crosses is found by any search that works
DRAWS = 4  # of the noise
PATIENT: Spec = {"name": "pgd", "steps": 80, "restarts": 3, "goal": "margin", "keep": "best", "step": 0.1}
TRIED = 200  # standing examples that the patient search sees: at most 48 000 gradients, a tenth of AutoAttack's


def unseen(trial: Trial) -> Iterator[Check]:
    """Transfer, noise and Square against what the attacks by gradient left standing."""
    own = rows_of(trial, "single", "iterative")
    missed = np.all([row.right if row.blind is None else row.right | row.blind for row in own] or [trial.clean], axis=0)
    if rows := rows_of(trial, "transfer"):
        broken = int((missed & ~np.all([row.right for row in rows], axis=0)).sum())
        names = ", ".join(row.name for row in rows)
        yield _bounded("transfer", broken, len(trial.sample), f"examples made for other models ({names}) break")
    yield noise(trial)
    free = [missed & ~row.right for row in rows_of(trial, "free")]
    free += [missed & row.blind for row in own if row.blind is not None]
    if free or "square" in trial.found_by:
        broken = trial.found_by.get("square", 0) + int(np.any(free, axis=0).sum() if free else 0)
        yield _bounded("gradient_free", broken, len(trial.sample), "attacks without gradients, such as Square, break")


def noise(trial: Trial) -> Check:
    """Several draws of uniform noise of size eps."""
    sample, right = trial.sample, trial.standing.copy()
    for draw in range(DRAWS):
        x = ball(trial.threat).start(sample.x, Draws(trial.seed), "judge/noise", sample.index, draw, "uniform")
        right &= trial.subject.reply(x, sample.y).right
    share = float((trial.standing & ~right).mean())
    return limit("noise", share, WEAKER, f"{DRAWS} draws of noise of size eps break {share:.1%} that no attack broke")


def patient(trial: Trial) -> Check:
    """Four times the usual steps, several restarts, on what stands: an attack that has converged gains nothing."""
    at: NDArray[np.int64] = np.flatnonzero(trial.standing)[:TRIED]
    broken = 0
    if len(at):
        batch = trial.sample.batch(at)
        target, draws = Heard(trial.twin, trial.progress), Draws(trial.seed).fold("judge/patient")
        x_adv = build(PATIENT, "judge.health")(target, batch, trial.threat, draws)
        broken = int((~trial.subject.reply(x_adv, batch.y).right).sum())
    # Of the standing examples tried; those that fell before cannot be gained.
    share = float(trial.standing.mean())
    bound = wilson(broken, len(at)).lower * share
    gain = broken / max(1, len(at)) * share
    sentence = f"more steps and restarts break another {gain:.1%} (at least {bound:.1%} with 95 % confidence)"
    thorough = any(row.kind == "last_word" or row.parts == ["own"] for row in trial.rows)
    # A protocol of a few steps claims no convergence, and the check "last_word" already says so.
    return limit("more_steps", bound, UNSEEN, sentence, "error" if thorough else "warning")


def _bounded(name: str, broken: int, n: int, what: str) -> Check:
    bound = wilson(broken, n).lower
    sentence = f"{what} {broken / n:.1%} that all attacks by gradient left standing"
    return limit(name, bound, UNSEEN, f"{sentence} (at least {bound:.1%} with 95 % confidence)")
