"""What lies in the workspace and may be lost: checkpoints of stages that never went on, models and judgements that can
be had again, teachers that nothing names, logs and reports."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from robustdistill.actions.gc import kept
from robustdistill.actions.gc.item import Item, Policy
from robustdistill.actions.gc.records import Found
from robustdistill.actions.sizes import size
from robustdistill.actions.stage_news import key_of
from robustdistill.services import git_history
from robustdistill.stages.catalog import STAGES
from robustdistill.workspace import Workspace


def find(workspace: Workspace, policy: Policy, found: Found) -> Iterator[Item]:
    """found: what stays in the records, so that what belongs to it stays here."""
    work = workspace.work
    places: list[tuple[str, list[Path], set[str]]] = [
        ("checkpoints", [path for name in STAGES for path in _in(work / name)], set()),
        ("judgements", [path for name in ("rescored", "confirm") for path in _in(work / name)], set()),
        ("fetched models", _in(work / "models"), found.models),
        ("sent files", _in(work / "mirror"), {key_of(run) for run in kept.untold(workspace)}),
        ("logs", [*_in(work / "logs"), *_in(work / "errors"), *work.glob("*-ui.log")], set()),
        ("reports", _old_reports(workspace, policy), found.flow_runs | {"now"}),
        ("teachers", _in(workspace.imports), _teachers(workspace) | found.teachers),
    ]
    for kind, paths, stays in places:
        for path in paths:
            if path.name not in stays and path.stem not in stays and newest(path) < policy.before:
                yield _item(kind, path, workspace.root)


def _in(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _old_reports(workspace: Workspace, policy: Policy) -> list[Path]:
    """All but the newest."""
    listed = sorted(_in(workspace.reports), key=newest, reverse=True)
    return listed[max(policy.keep_runs, 0) :]


def _teachers(workspace: Workspace) -> set[str]:
    """Teachers that a pin has ever named, in any commit: the DVC remote does not hold them. And the present one."""
    texts = git_history.pins(workspace.root)
    for path in (workspace.pin, workspace.out("teacher") / "model.json"):
        texts += [path.read_text(encoding="utf-8")] if path.is_file() else []
    return {sha for text in texts if (sha := _sha(text))}


def _sha(text: str) -> str:
    try:
        return str(json.loads(text).get("sha256") or "")
    except (ValueError, AttributeError):
        return ""


def newest(path: Path) -> float:
    """When a file, or anything in a folder, was last written: seconds since the epoch."""
    inside = [Path(place) / name for place, folders, names in os.walk(path) for name in (*folders, *names)]
    times = [0.0]
    for each in (path, *inside):
        try:
            times.append(each.lstat().st_mtime)
        except OSError:
            continue
    return max(times)


def _item(kind: str, path: Path, root: Path) -> Item:
    def remove() -> None:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    return Item(kind, str(path.relative_to(root)), remove, size(path))
