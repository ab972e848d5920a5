"""The chain of stages as the flow sees it: what has to run, and what may run at the same time."""

from __future__ import annotations

from robustdistill import journal
from robustdistill.machine import cores
from robustdistill.services import dvc_cli
from robustdistill.stages.catalog import with_descendants
from robustdistill.workspace import Workspace

PAID_FOR_LAST = ("student", "control")  # they and what reads them wait until the teacher has qualified
JUDGED_ON = ("prepare", "initial", "adversaries")  # what any model is judged with


def stages_at_once() -> int:
    """Two stages that do not read each other run at the same time where there are two cores for them."""
    return 2 if cores() >= 2 else 1


def split(names: list[str]) -> tuple[list[str], list[str]]:
    """What runs before the teacher is judged worth distilling, and what runs only if it is."""
    last = set(with_descendants(PAID_FOR_LAST))
    return [name for name in names if name not in last], [name for name in names if name in last]


def run_stage(workspace: Workspace, name: str, run: str) -> None:
    """Runs one stage through its only door, `dvc repro`. Raises what the stage raised, or ServiceFailed."""
    dvc_cli.repro(workspace.root, name, {journal.RUN_VARIABLE: run})
