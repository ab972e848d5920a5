"""What a training cost, of two kinds: examples, and CPU seconds of attack and update.

Student and control get the same examples; how many more seconds distilling them took is said beside the gain. The
journal is where it stands, since files that DVC tracks hold no times; so a clone that trained nothing knows none.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from robustdistill.journal import read
from robustdistill.workspace import Workspace


@dataclass(frozen=True)
class Spent:
    """examples: repeats counted. cpu_seconds: of attack, update and the teacher's answers, without validation."""

    epochs: int
    examples: int
    cpu_seconds: float


def spent(workspace: Workspace, role: str) -> Spent | None:
    """What the model that lies in the artifacts of `role` took; None where it was not trained in this workspace."""
    try:
        summary = json.loads((workspace.out(role) / "summary.json").read_text(encoding="utf-8"))
        sha256 = summary["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    found = None
    for _, record in read(workspace.journal):
        if record.get("event") == "trained" and record.get("stage") == role and record.get("sha256") == sha256:
            found = Spent(int(record["epochs"]), int(record["examples"]), float(record["cpu_seconds"]))
    return found


def sentence(workspace: Workspace) -> str:
    """Whether student and control had the same; "" where one of them was not trained in this workspace."""
    student, control = spent(workspace, "student"), spent(workspace, "control")
    if student is None or control is None or control.cpu_seconds <= 0:
        return ""
    ours, theirs = f"{student.cpu_seconds:,.0f}", f"{control.cpu_seconds:,.0f}"
    more = student.cpu_seconds / control.cpu_seconds - 1
    if student.examples == control.examples:
        same = f"student and control trained on {student.examples:,} examples each, in {student.epochs} epochs"
    else:
        same = f"the student trained on {student.examples:,} examples, the control on {control.examples:,}"
    return f"{same}; {ours} and {theirs} CPU seconds of attack and update, {more:+.0%} for the student"
