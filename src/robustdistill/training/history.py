"""The history of a training as a table that DVC can plot."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

FIRST, LAST = ("epoch", "step", "lr", "loss"), ("val_clean", "val_pgd")


def to_csv(history: Sequence[Mapping[str, Any]]) -> str:
    """epoch, step, lr, loss, the objective's terms, val_clean, val_pgd. Empty where nothing was measured."""
    terms = sorted({key for row in history for key in row} - {*FIRST, *LAST})
    stream = io.StringIO()
    writer = csv.DictWriter(stream, [*FIRST, *terms, *LAST], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in history)
    return stream.getvalue()


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else value
