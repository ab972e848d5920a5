"""Can this evaluation be trusted? Checks after Carlini et al. (2019), "On evaluating adversarial robustness", and
Croce and Hein (2020). A robust accuracy is an upper bound; these are the known signs that it is a loose one.

An error forbids any decision on the figures, a warning is shown beside them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from robustdistill.attacks import Access, TorchTarget
from robustdistill.attacks.ball import ball
from robustdistill.attacks.goals import cross_entropy
from robustdistill.judge.curve import Curve
from robustdistill.judge.subject import BATCH
from robustdistill.judge.trial import Row, Trial
from robustdistill.rng import Draws

Level = Literal["error", "warning"]
Flags = NDArray[np.bool_]

# Thresholds are shares of the sample unless said otherwise.
WEAKER = 0.01  # by which an iterative attack may be weaker than a single step (chance)
RISE = 0.02  # of accuracy with a larger eps (chance: the curve has few examples)
OVERWHELMED = 0.15  # accuracy above chance where every input can be turned into the same gray image
FLAT = 0.05  # examples whose gradient is zero: attacks by gradient are blind there
TINY = 1e-30  # largest entry of a gradient that counts as zero
UNSEEN = 0.02  # broken by an attack without gradients, and by none with
GAP = 0.08  # PGD leaves standing what AutoAttack breaks: 0.03 to 0.055 is usual (algorithms of 2021 to 2025)
PARITY = 1e-3  # difference of logits between PyTorch and the exported file, relative to the largest logit if above 1


@dataclass(frozen=True)
class Check:
    """One check. value and threshold in the unit the sentence names."""

    name: str
    ok: bool
    level: Level
    value: float
    threshold: float
    sentence: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def checks(trial: Trial, curve: Curve) -> list[Check]:
    """All checks that the attacks of this trial allow, in a fixed order."""
    if trial.subject.access < Access.GRADIENT:
        return [*_forward(trial), _access(trial), _inside(trial), _noise(trial), *_last_word(trial)]
    return [
        *_forward(trial),
        _flat(trial),
        *_iterative(trial),
        _monotone(curve),
        _overwhelmed(curve, trial.subject.classes),
        _inside(trial),
        *_unseen(trial),
        *_last_word(trial),
        *_origin(trial),
    ]


def _limit(name: str, value: float, threshold: float, sentence: str, level: Level = "error") -> Check:
    """Holds where value ≤ threshold; a value that is not a number holds nowhere."""
    value = float(value)
    plain = value if np.isfinite(value) else 1e9  # JSON has no NaN
    return Check(name, bool(value <= threshold), level, round(plain, 9), threshold, sentence)


def _forward(trial: Trial) -> Iterator[Check]:
    """The model as a function: finite, the same twice, the same in both forms."""
    subject, x = trial.subject, trial.sample.x[:BATCH]
    once, again = subject.logits(x), subject.logits(x)
    bad = int((~torch.isfinite(subject.logits(trial.worst))).sum() + (~torch.isfinite(once)).sum())
    yield _limit("finite_logits", bad, 0, f"{bad} logits on clean and attacked inputs are not finite numbers")
    drift = float((once - again).abs().max())
    yield _limit("deterministic", drift, 0.0, f"the same inputs twice give logits that differ by at most {drift:.2g}")
    if subject.file is None or subject.access < Access.GRADIENT:
        return  # there is one form of it only
    served = subject.served(x)
    gap = float(np.abs(once.cpu().numpy() - served).max())
    limit = PARITY * max(1.0, float(np.abs(served).max()))
    yield _limit("parity", gap, limit, f"PyTorch and the exported file give logits that differ by at most {gap:.2g}")


def _flat(trial: Trial) -> Check:
    target, sample = TorchTarget(trial.subject.model), trial.sample
    flat = []
    for begin in range(0, len(sample), BATCH):
        positions = np.arange(begin, min(begin + BATCH, len(sample)))
        largest = target.gradient(sample.batch(positions), cross_entropy).flatten(1).abs().amax(1)
        flat.append(((largest <= TINY) | ~torch.isfinite(largest)).cpu().numpy())
    share = float(np.concatenate(flat).mean())
    sentence = (
        f"the gradient of the loss vanishes on {share:.1%} of the examples, so attacks by gradient are blind there"
    )
    return _limit("zero_gradients", share, FLAT, sentence)


def _iterative(trial: Trial) -> Iterator[Check]:
    single, iterative = _rows(trial, "single"), _rows(trial, "iterative")
    if single and iterative:
        one, many = (min(float(row.right.mean()) for row in rows) for rows in (single, iterative))
        sentence = f"many small steps leave {many:.1%} standing, a single step {one:.1%}"
        yield _limit("iterative_stronger", many - one, WEAKER, sentence)


def _monotone(curve: Curve) -> Check:
    values = [point.measured for point in curve.points]
    rise = max((later - earlier for earlier, later in pairwise(values)), default=0.0)
    rise = max(rise, 0.0)
    return _limit("monotone", rise, RISE, f"accuracy rises by at most {rise:.1%} from one eps to the next larger one")


def _overwhelmed(curve: Curve, classes: int) -> Check:
    above = max(0.0, curve.overwhelmed - 1 / classes)
    sentence = f"accuracy is {curve.overwhelmed:.1%} where the attacker may turn every input into the same one"
    return _limit("large_eps", above, OVERWHELMED, sentence)


def _inside(trial: Trial) -> Check:
    outside = int((~ball(trial.threat).contains(trial.worst, trial.sample.x)).sum())
    return _limit("inside", outside, 0, f"{outside} of the worst inputs found lie outside the threat model")


def _unseen(trial: Trial) -> Iterator[Check]:
    """What needs no gradient must not find what gradients missed: else the gradients mislead."""
    missed = np.all([row.right for row in _rows(trial, "single", "iterative")] or [trial.clean], axis=0)
    for row in _rows(trial, "transfer"):
        share = float((missed & ~row.right).mean())
        sentence = f"examples made for another model break {share:.1%} that attacks on this model left standing"
        yield _limit("transfer", share, UNSEEN, sentence)
    yield _noise(trial)
    if "square" in trial.found_by:
        share = trial.found_by["square"] / len(trial.sample)
        sentence = f"the gradient-free Square attack breaks {share:.1%} that all attacks by gradient left standing"
        yield _limit("gradient_free", share, UNSEEN, sentence)


def _noise(trial: Trial) -> Check:
    sample = trial.sample
    x = ball(trial.threat).start(sample.x, Draws(trial.seed), "judge/noise", sample.index, 0, "uniform")
    share = float((trial.standing & ~trial.subject.reply(x, sample.y).right).mean())
    return _limit("noise", share, WEAKER, f"random noise of size eps breaks {share:.1%} that no attack broke")


def _access(trial: Trial) -> Check:
    sentence = (
        f"the model gives {trial.subject.access.name.lower()} only: attacks without gradients break few examples, so "
        "robustness is not shown"
    )
    return Check("access", False, "error", float(trial.subject.access), float(Access.GRADIENT), sentence)


def _last_word(trial: Trial) -> Iterator[Check]:
    rows = _rows(trial, "last_word")
    if not rows:
        yield Check("last_word", False, "warning", 0.0, 1.0, "no AutoAttack was run: the figures may be too high")
        return
    if cheap := _rows(trial, "iterative"):
        gap = min(float(row.right.mean()) for row in cheap) - float(rows[0].right.mean())
        sentence = f"{rows[0].name} breaks {gap:.1%} that the project's own attacks left standing"
        yield _limit("gap", gap, GAP, sentence, "warning")
    count = len(trial.warnings)
    said = "; ".join(trial.warnings) or "nothing"
    yield _limit("autoattack_warnings", count, 0, f"AutoAttack warns of: {said}", "warning")


def _origin(trial: Trial) -> Iterator[Check]:
    """What a model has seen is left out of the sample; what nobody recorded cannot be."""
    if unknown := trial.subject.unknown:
        sentence = (
            f"what {', '.join(unknown)} was trained on is unknown, and this model comes from it: it may have seen "
            "judged examples, so the figures may be too high"
        )
        yield Check("origin", False, "warning", float(len(unknown)), 0.0, sentence)


def _rows(trial: Trial, *kinds: str) -> list[Row]:
    return [row for row in trial.rows if row.kind in kinds]
