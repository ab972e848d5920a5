"""`robustdistill doctor`: is this setup such that a night's run will get through? Looks, and changes nothing.

Every group of checks runs in a thread of its own, those that ask services first: these get five seconds a request, and
whoever has not answered when the time is up is reported and left behind.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from robustdistill.actions.doctor import disk, house, mlflow, prefect, privacy, remote, versions
from robustdistill.actions.doctor.finding import Case, Check, Finding
from robustdistill.errors import BadInput, ServiceFailed
from robustdistill.workspace import Workspace

SERVICE_SECONDS, LOCAL_SECONDS = 20.0, 120.0  # a busy machine takes long to import torch
SERVICES: Mapping[str, Check] = {"MLflow": mlflow.examine, "Prefect": prefect.examine, "DVC remote": remote.examine}
LOCAL: Mapping[str, Check] = {
    "versions": versions.examine,
    "workspace": house.examine,
    "disk": disk.examine,
    "privacy": privacy.examine,
}


def examine(workspace: Workspace | None, *, write: bool = False) -> list[Finding]:
    """All findings: services first. write: see `Case`."""
    case = Case(workspace, write)
    return together(case, SERVICES, SERVICE_SECONDS, services=True) + together(case, LOCAL, LOCAL_SECONDS)


def together(case: Case, checks: Mapping[str, Check], seconds: float, *, services: bool = False) -> list[Finding]:
    """Findings in the order of `checks`, after `seconds` at most."""
    found: dict[str, list[Finding]] = {name: [] for name in checks}

    def run(name: str) -> None:
        found[name].extend(checks[name](case))

    threads = {name: threading.Thread(target=run, args=(name,), name=name, daemon=True) for name in checks}
    end = time.monotonic() + seconds
    for thread in threads.values():
        thread.start()
    for name, thread in threads.items():
        thread.join(max(0.0, end - time.monotonic()))
        if thread.is_alive():
            told = f"not finished within {seconds:.0f} s"
            late = Finding(name, "FAIL", told, "try again on a quieter machine; look at this service", services)
            found[name] = [*found[name], late]  # what comes later goes to the list that nobody reads any more
    return [finding for group in found.values() for finding in group]


def exit_code(findings: Sequence[Finding]) -> int:
    """0 where nothing fails, 2 for a wrong setup, 4 where services alone failed: a setup comes first."""
    failed = [finding for finding in findings if finding.level == "FAIL"]
    if not failed:
        return 0
    return ServiceFailed.exit_code if all(finding.service for finding in failed) else BadInput.exit_code


def place(workspace: Workspace | None) -> str:
    return str(workspace.root) if workspace else f"{Path.cwd()}: no workspace, so only this machine and its services"
