"""What changed in the data, from whoever versions them to the next flow run, which shows it in Prefect and MLflow.

A report is left before DVC versions the data (until then the change itself can still be seen), and is gone only after
the run that shows it is on record: a crash may repeat a report and never loses one.
"""

from __future__ import annotations

import re
from pathlib import Path

from robustdistill.workspace import Workspace, write_atomically

HEADING = "## Data "


def path(workspace: Workspace) -> Path:
    return workspace.work / "data-changes.md"


def leave(workspace: Workspace, digest: str, markdown: str) -> None:
    """Adds the report of how the data became those of `digest`; one of the same data, if it is the last, is replaced.

    Raises OSError.
    """
    sections = [part for part in re.split(f"(?m)^(?={HEADING})", waiting(workspace)) if part]
    head = f"{HEADING}{digest}\n"
    if sections and sections[-1].startswith(head):
        sections.pop()
    write_atomically(path(workspace), "".join([*sections, f"{head}\n{markdown.strip()}\n\n"]))


def waiting(workspace: Workspace) -> str:
    """The reports that no finished run has shown, oldest first, as markdown; "" if there are none."""
    try:
        return path(workspace).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def told(workspace: Workspace) -> None:
    """Forgets the reports: the caller holds the workspace's lock, and the run that showed them is on record."""
    path(workspace).unlink(missing_ok=True)
