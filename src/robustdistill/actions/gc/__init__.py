"""`robustdistill gc`: makes room by removing what is old and what nothing needs. It only shows it, unless told to.

What is needed is read from the registry, the records and git each time, and written down nowhere: so it may be killed
at any moment, and the next one goes on with what is left.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from robustdistill.actions.gc import cache, leftovers, records
from robustdistill.actions.gc.item import Item, Plan, Policy, seconds, total
from robustdistill.errors import BadInput
from robustdistill.workspace import Workspace

KEEP_RUNS, OLDER_THAN = 20, "30d"


@dataclass(frozen=True)
class Request:
    """What was asked. remote: DVC's remote, too. purge: MLflow's bin, too."""

    keep_runs: int = KEEP_RUNS
    older_than: str = OLDER_THAN
    apply: bool = False
    remote: bool = False
    purge: bool = False

    def policy(self) -> Policy:
        if self.keep_runs < 0:
            raise BadInput("a number of runs is not negative", where="--keep-runs", fix="--keep-runs 20")
        return Policy(self.keep_runs, time.time() - seconds(self.older_than))


def run(workspace: Workspace, request: Request, say: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """What may go, by kind; and if asked, it goes. Raises BadInput if a run holds the workspace, ServiceFailed."""
    policy = request.policy()
    with workspace.lock():
        plan = _plan(workspace, policy, request)
        stayed = _remove(plan, say) if request.apply else []
    return {
        "applied": request.apply,
        "kinds": plan.table(),
        "bytes": total(item.size for item in plan.items if item.size is not None),
        "items": [
            {"kind": item.kind, "name": item.name, "bytes": item.size, "count": item.count} for item in plan.items
        ],
        "needed_meanwhile": stayed,
        "notes": plan.notes,
    }


def _plan(workspace: Workspace, policy: Policy, request: Request) -> Plan:
    found = records.find(workspace, policy, purge=request.purge)
    objects = cache.find(workspace, policy, found.commits, remote=request.remote)
    return Plan([*found.items, *objects, *leftovers.find(workspace, policy, found)], found.notes)


def _remove(plan: Plan, say: Callable[[str], None]) -> list[str]:
    """Returns what has turned out to be needed."""
    stayed: list[Item] = []
    for item in plan.items:
        say(f"{item.kind}: {item.name}")
        if item.remove() is False:
            stayed.append(item)
    return [f"{item.kind}: {item.name}" for item in stayed]
