"""All records of a study in one file, a line each: what the table is made from, without the models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robustdistill.errors import BadInput
from robustdistill.workspace import write_atomically

NOT_KEPT = ("curve", "alarms")


def write(records: Sequence[dict[str, Any]], file: Path) -> None:
    kept = [{key: value for key, value in record.items() if key not in NOT_KEPT} for record in records]
    write_atomically(file, "".join(json.dumps(record, sort_keys=True) + "\n" for record in kept))


def read(file: Path) -> list[dict[str, Any]]:
    """Raises BadInput for a file that is not there or holds something else."""
    try:
        found = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise BadInput(f"no packed records: {error}", where=str(file)) from error
    if not found or not all(isinstance(record, dict) and {"run", "settings"} <= record.keys() for record in found):
        raise BadInput("these are no records of a study", where=str(file))
    return found
