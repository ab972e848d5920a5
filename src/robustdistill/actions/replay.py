"""The stored adversarial set played against a registered version, as it lies in the registry, before it is promoted.

What is served has to answer these hardest inputs as the judged file did: equal logits on easy ones do not show that.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from robustdistill.actions import package
from robustdistill.errors import BadInput, ServiceFailed
from robustdistill.gate.scorecard import Evidence
from robustdistill.inputs.pixels import to_unit

ROW = "transfer"  # the scorecard's row about the same inputs
TOLERATED = 0.01  # share of answers that may differ: at the boundary, another processor's rounding decides


class Replay(NamedTuple):
    """examples: stored ones of the judged sample. right: answered rightly. lost: of these, right only when judged."""

    examples: int
    right: int
    lost: int


def replay(version: Path, adversaries: Path, judged: Evidence) -> Replay:
    """A registered version (its files) on the stored adversarial examples of the sample it was judged on.

    Raises ServiceFailed if it has lost more than TOLERATED of the right answers, BadInput if the set cannot be read.
    """
    if ROW not in judged.outcomes:
        return Replay(0, 0, 0)
    positions, x_adv = _stored(adversaries, judged)
    answers = package.logits(version / "model.onnx", to_unit(x_adv, judged.threat.low, judged.threat.high)).argmax(1)
    right = answers == judged.labels[positions]
    lost = int((judged.outcomes[ROW][positions] & ~right).sum())
    if lost > max(1, TOLERATED * len(positions)):
        raise ServiceFailed(
            f"the registered version gets {lost} of {len(positions)} stored adversarial examples wrong that the judged "
            "file got right: it is not what was judged",
            where=str(version),
            fix="judge it again here: dvc repro --force --single-item score@student, then run the flow",
        )
    return Replay(len(positions), int(right.sum()), lost)


def _stored(folder: Path, judged: Evidence) -> tuple[NDArray[np.intp], NDArray[Any]]:
    """Positions in the judged sample [M] and their stored examples, uint8 [M, *shape]."""
    try:
        x_adv = np.load(folder / "test_x_adv.npy", mmap_mode="r", allow_pickle=False)
        ids = np.load(folder / "test_id.npy", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        fix = "make the adversarial set again: dvc repro adversaries"
        raise BadInput("the adversarial set is incomplete or damaged", where=str(folder), fix=fix) from error
    _, positions, at = np.intersect1d(judged.ids, ids, return_indices=True)
    return positions, np.asarray(x_adv[at])
