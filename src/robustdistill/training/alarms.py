"""Known ways in which adversarial training goes wrong, recognised from the figures of an epoch. Each has advice."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CATASTROPHIC_NEAR_CLEAN = 0.02
CATASTROPHIC_GAP = 0.15
COLLAPSE_LOSS = 0.01  # relative distance from log C
NEAR_CHANCE = 0.02
OVERFITTING_FALL = 0.05


@dataclass(frozen=True)
class Alarm:
    kind: str
    message: str
    advice: str


def check(
    history: Sequence[Mapping[str, Any]],
    fgsm: float | None,
    *,
    classes: int,
    chance: float,
    examples: int,
    rising: bool,
) -> list[Alarm]:
    """Alarms that the last row of `history` gives reason for.

    fgsm: accuracy under FGSM on the same validation examples, of which there are `examples`. chance: accuracy there of
    a model that always gives the same answer. rising: lr or eps is still on its way up, when a model
    near chance means nothing.
    """
    row = history[-1]
    found = [
        catastrophic(row, fgsm),
        None if rising else collapse(row, classes, chance),
        overfitting(history, examples),
    ]
    return [alarm for alarm in found if alarm is not None]


def catastrophic(row: Mapping[str, Any], fgsm: float | None) -> Alarm | None:
    """One-step attacks fail, iterated ones succeed (Wong et al. 2020): the loss surface was bent, not flattened."""
    clean, pgd = row.get("val_clean"), row.get("val_pgd")
    if fgsm is None or clean is None or pgd is None:
        return None
    if fgsm < clean - CATASTROPHIC_NEAR_CLEAN or pgd > fgsm - CATASTROPHIC_GAP:
        return None
    return Alarm(
        "catastrophic overfitting",
        f"FGSM leaves {fgsm:.1%} of {clean:.1%} clean accuracy, PGD only {pgd:.1%}",
        "more attack steps in training (pgd, steps 2 or more), a smaller step, fewer epochs, or a lower lr at the end",
    )


def collapse(row: Mapping[str, Any], classes: int, chance: float) -> Alarm | None:
    """Nothing is learnt: clean accuracy is that of a constant answer, or robust accuracy is and the loss is log C."""
    clean, pgd = row.get("val_clean"), row.get("val_pgd")
    if clean is None:
        return None
    stuck = abs(row["loss"] - math.log(classes)) <= COLLAPSE_LOSS * math.log(classes)
    constant = clean <= chance + NEAR_CHANCE
    if not (constant or (stuck and pgd is not None and pgd <= chance + NEAR_CHANCE)):
        return None
    advice = "let eps rise (eps_warmup 0.3), lower lr, or lengthen warmup; large eps from the first step on does this"
    if pgd is None:  # nothing attacks in this training
        advice = "train for more epochs, in smaller batches, or with another lr; labels that say nothing do this, too"
    return Alarm(
        "collapse",
        f"the loss is {row['loss']:.3f} (log C = {math.log(classes):.3f}) and clean accuracy {clean:.1%}",
        advice,
    )


def overfitting(history: Sequence[Mapping[str, Any]], examples: int) -> Alarm | None:
    """Robust overfitting (Rice et al. 2020): the training loss still falls, validation robustness has long turned."""
    rows = [row for row in history if row.get("val_pgd") is not None]
    if len(rows) < 3:
        return None
    best, last = max(rows, key=lambda row: float(row["val_pgd"])), rows[-1]
    noise = 2.0 * math.sqrt(best["val_pgd"] * (1.0 - best["val_pgd"]) / examples)
    fall = best["val_pgd"] - last["val_pgd"]
    if fall <= max(OVERFITTING_FALL, noise) or last["loss"] >= best["loss"]:
        return None
    return Alarm(
        "robust overfitting",
        f"validation accuracy under PGD fell from {best['val_pgd']:.1%} in epoch {best['epoch']} to "
        f"{last['val_pgd']:.1%} while the training loss fell on",
        "fewer epochs, averaging (ema 0.995), more weight_decay, augment, or a teacher; the best epoch is kept anyway",
    )
