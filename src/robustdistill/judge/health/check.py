"""One check of an evaluation: a measured value against a limit, and the sentence that says what it means."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from robustdistill.judge.trial import Row, Trial

Level = Literal["error", "warning"]


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


def limit(name: str, value: float, threshold: float, sentence: str, level: Level = "error") -> Check:
    """Holds where value ≤ threshold; a value that is not a number holds nowhere."""
    value = float(value)
    plain = value if np.isfinite(value) else 1e9  # JSON has no NaN
    return Check(name, bool(value <= threshold), level, round(plain, 9), threshold, sentence)


def rows_of(trial: Trial, *kinds: str) -> list[Row]:
    return [row for row in trial.rows if row.kind in kinds]
