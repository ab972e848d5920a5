"""Where a workspace stands, from its files alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from robustdistill.gate.rules import require_known
from robustdistill.recipes import specs
from robustdistill.services import dvc_cli
from robustdistill.workspace import Workspace


def last_run(workspace: Workspace) -> dict[str, Any] | None:
    """The summary of the last flow run that came to an end; None before the first."""
    try:
        return dict(json.loads((workspace.work / "summary.json").read_text(encoding="utf-8")))
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def standing(workspace: Workspace) -> dict[str, Any]:
    """Model, data digest, stages that would run, and what the last run came to. running: the pid of a run that holds
    the workspace, or None; DVC cannot tell what would run as long as it does. Raises BadInput for settings that a run
    would refuse."""
    require_known(workspace.policy())
    specs.require_complete(workspace.root / "params.yaml", workspace.params())
    busy = workspace.holder()
    return {
        "workspace": str(workspace.root),
        "model": workspace.name,
        "data": dvc_cli.digest(workspace.root),
        "running": busy,
        "changed": [] if busy else dvc_cli.changed(workspace.root),
        "last": last_run(workspace),
    }


def write_report(workspace: Workspace) -> Path:
    """The HTML report of what the workspace holds now, with the last verdict."""
    from robustdistill.actions import report

    last = last_run(workspace)
    if last is None:
        return report.write(workspace, "now", None)
    return report.write(workspace, "now", last["verdict"], (last["outcome"], last["sentence"], last["registry"]))
