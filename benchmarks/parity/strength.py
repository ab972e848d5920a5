"""What an attack in training mode reaches, and what one in evaluation mode does: CE of the student in both modes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from benchmarks.parity.compare import IN_TRAINING_MODE, OWN, Case, run_ours, run_theirs, table
from benchmarks.parity.scene import scene, world
from benchmarks.parity.source import Clones
from torch.nn.functional import cross_entropy

HEAD = ("step", "student in", "CE at x", "at their x'", "at ours")


class Strength(NamedTuple):
    """mode: of the student that answers, "evaluation" (what is judged) or "training" (what the outer loss sees)."""

    name: str
    mode: str
    clean: float
    theirs: float
    ours: float


def strength(case: Case, clones: Clones) -> list[Strength]:
    """Two rows for a case whose published attack runs in training mode, none for another. Raises BadInput."""
    if IN_TRAINING_MODE not in case.ways:
        return []
    rows = []
    with world():
        theirs = run_theirs(case, clones)
        ours = run_ours(case, theirs, OWN)
        given = scene(case.edge)
        for mode in ("evaluation", "training"):
            model = given.student.train(mode == "training")
            with torch.no_grad():
                ce = [float(cross_entropy(model(x), given.y)) for x in (given.x, theirs.x_adv, ours.x_adv)]
            rows.append(Strength(case.name, mode, *ce))
    return rows


def strengths(rows: Iterable[Strength]) -> str:
    """The rows as a table."""
    return table(HEAD, ((row.name, row.mode, *(f"{ce:.3f}" for ce in row[2:])) for row in rows))
