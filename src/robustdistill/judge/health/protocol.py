"""Was the attack what it should be: inside the ball, with gradients, with a last word, on examples not trained on?"""

from __future__ import annotations

from collections.abc import Iterator

from robustdistill.attacks import Access
from robustdistill.attacks.ball import ball
from robustdistill.judge.health.check import Check, limit, rows_of
from robustdistill.judge.trial import Trial

GAP = 0.08  # PGD leaves standing what AutoAttack breaks: 0.03 to 0.055 is usual (algorithms of 2021 to 2025)
SCALED = 1.0  # by which the attacked logits are divided: 1 is as the model gives them


def scale(trial: Trial) -> Check:
    """Losses see logits of an ordinary size; the verdicts are those of the model as it is."""
    sentence = f"attacks by gradient see the logits divided by {trial.scale:.3g}, since they are of an unusual size"
    plain = trial.scale == SCALED
    said = "the logits are of an ordinary size: attacks see them as they are" if plain else sentence
    return Check("logit_scale", plain, "warning", float(f"{trial.scale:.9g}"), SCALED, said)


def inside(trial: Trial) -> Check:
    outside = int((~ball(trial.threat).contains(trial.worst, trial.sample.x)).sum())
    return limit("inside", outside, 0, f"{outside} of the worst inputs found lie outside the threat model")


def access(trial: Trial) -> Check:
    sentence = (
        f"the model gives {trial.subject.access.name.lower()} only: attacks without gradients break few examples, so "
        "robustness is not shown"
    )
    return Check("access", False, "error", float(trial.subject.access), float(Access.GRADIENT), sentence)


def last_word(trial: Trial) -> Iterator[Check]:
    found = rows_of(trial, "last_word")
    if not found:
        yield Check("last_word", False, "warning", 0.0, 1.0, "no AutoAttack was run: the figures may be too high")
        return
    if cheap := rows_of(trial, "iterative"):
        gap = min(float(row.right.mean()) for row in cheap) - float(found[0].right.mean())
        sentence = f"{found[0].name} breaks {gap:.1%} that the project's own attacks left standing"
        yield limit("gap", gap, GAP, sentence, "warning")
    count = len(trial.warnings)
    said = "; ".join(trial.warnings) or "nothing"
    yield limit("autoattack_warnings", count, 0, f"AutoAttack warns of: {said}", "warning")


def origin(trial: Trial) -> Iterator[Check]:
    """What a model has seen is left out of the sample; what nobody recorded cannot be."""
    if unknown := trial.subject.unknown:
        sentence = (
            f"what {', '.join(unknown)} was trained on is unknown, and this model comes from it: it may have seen "
            "judged examples, so the figures may be too high"
        )
        yield Check("origin", False, "warning", float(len(unknown)), 0.0, sentence)
