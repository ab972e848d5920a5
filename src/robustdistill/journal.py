"""The journal: what happens when, one JSON object a line, appended by every process of a workspace.

Times, run ids and seconds live here and only here; files that DVC tracks never hold them. The flow mirrors the journal
into MLflow and the terminal from a saved offset, so a server that is away never delays training.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RUN_VARIABLE = "ROBUSTDISTILL_RUN"  # the flow run that a stage process belongs to; empty under plain `dvc repro`


@dataclass(frozen=True)
class Journal:
    """Appends events for one stage: start, resumed, end, failed, progress, epoch, trained, alarm, attack, note."""

    path: Path
    stage: str

    def write(self, event: str, **fields: Any) -> None:
        """One line, one write: safe with several processes. Disk errors raise OSError."""
        record = {"t": time.time(), "run": os.environ.get(RUN_VARIABLE, ""), "stage": self.stage, "event": event}
        line = json.dumps(record | fields, allow_nan=True) + "\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)

    def note(self, message: str) -> None:
        """A sentence that has to be known."""
        self.write("note", message=message)

    def progress(self, done: int, total: int, unit: str, **fields: Any) -> None:
        """How far this stage is; `fields` are the figures worth seeing (loss, robust so far)."""
        self.write("progress", done=done, total=total, unit=unit, **fields)


def read(path: Path, offset: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """Whole lines from `offset` on, each with the offset after it. A half-written last line is left for next time."""
    if not path.exists():
        return
    with path.open("rb") as stream:
        stream.seek(offset)
        while line := stream.readline():
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue  # a line torn by a crash; the next one is whole again
            if isinstance(record, dict):
                yield offset, record


def fraction(record: Mapping[str, Any]) -> float | None:
    """How far a stage is, in [0, 1], from a progress or attack event; None for events that do not say. share: more
    exactly than by what is done."""
    if isinstance(share := record.get("share"), int | float):
        return min(1.0, max(0.0, share))
    done, total = record.get("done"), record.get("total")
    if not isinstance(done, int | float) or not isinstance(total, int | float) or total <= 0:
        return None
    return min(1.0, max(0.0, done / total))
