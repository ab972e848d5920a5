"""Runs one stage as a process of its own: what `dvc repro` calls, by hand or from the flow."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import shutil
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from robustdistill import config
from robustdistill.actions import looks
from robustdistill.errors import BadInput, RobustDistillError, ServiceFailed, of_system
from robustdistill.journal import Journal
from robustdistill.recipes import specs
from robustdistill.services import dvc_cli, leash
from robustdistill.stages import catalog
from robustdistill.workspace import Workspace, write_atomically

if TYPE_CHECKING:
    from robustdistill.stages.tools import Tools


class Stopped(BaseException):
    """SIGTERM, raised where the stage happens to be."""


def run(workspace: Workspace, name: str, revision: int, *, debug: bool = False) -> None:
    """Runs a stage from a clean output folder. Its error is journalled, written down for the flow, and raised."""
    stage = catalog.get(name)
    leash.watch()
    signal.signal(signal.SIGTERM, _stop)
    journal = Journal(workspace.journal, name)
    workspace.error(name).unlink(missing_ok=True)
    began = time.monotonic()
    journal.write("start", revision=revision)
    try:
        _check(workspace, stage, revision)
        _run(workspace, stage, journal, debug=debug)
        looks.note_stage(workspace, name)
    except BaseException as error:
        record = describe(error)
        with suppress(OSError):  # on a full disk, what filled it is still what is raised
            write_atomically(workspace.error(name), json.dumps(record, indent=2, sort_keys=True) + "\n")
            spent = round(time.monotonic() - began, 3)
            journal.write("failed", seconds=spent, error=record["cause"], kind=record["kind"])
        raise
    journal.write("end", seconds=round(time.monotonic() - began, 3))
    shutil.rmtree(workspace.work / name, ignore_errors=True)


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise Stopped


def _check(workspace: Workspace, stage: catalog.Stage, revision: int) -> None:
    if revision != stage.revision:
        raise BadInput(
            f"dvc.yaml asks for revision {revision} of {stage.name}, this robustdistill has revision {stage.revision}",
            where=str(workspace.root / "dvc.yaml"),
            fix="robustdistill upgrade",
        )
    for path in stage.reads.values():
        if not (workspace.root / path).exists():
            fix = "robustdistill data add PATH" if path == "data" else "run the flow, which runs every stage it needs"
            raise BadInput(f"{stage.name} reads {path}, which is not there", where=str(workspace.root), fix=fix)


def _run(workspace: Workspace, stage: catalog.Stage, journal: Journal, *, debug: bool) -> None:
    params = workspace.params()
    # before hours are spent, not when the student's turn comes
    specs.require_complete(workspace.root / "params.yaml", params)
    tools = _tools(journal, workspace.scratch(stage.name, input_key(workspace, stage, params)), debug=debug)
    on = dataclasses.asdict(tools.compute)
    journal.write("note", message=", ".join(f"{key} {value}" for key, value in on.items()), **on)
    out = workspace.root / stage.out
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    reads = {role: workspace.root / path for role, path in stage.reads.items()}
    importlib.import_module(stage.module).run(params, reads, out, tools)


def _tools(journal: Journal, scratch: Path, *, debug: bool) -> Tools:
    from robustdistill.engine import devices
    from robustdistill.stages.tools import Tools

    compute = devices.choose()
    devices.apply(compute)
    scratch.mkdir(parents=True, exist_ok=True)
    return Tools(compute=compute, journal=journal, scratch=scratch, debug=debug)


def input_key(workspace: Workspace, stage: catalog.Stage, params: config.Params) -> str:
    """Names exactly these inputs: a checkpoint made from others is never found."""
    hashes = {
        role: str(dvc_cli.digest(workspace.root)) if role == "data" else content_hash(workspace.root / path)
        for role, path in stage.reads.items()
    }
    return _key(stage, params, hashes)


def _key(stage: catalog.Stage, params: config.Params, hashes: Mapping[str, str]) -> str:
    used = config.dump(params)
    parts = {"revision": stage.revision, "params": {key: _at(used, key) for key in stage.params}, "reads": dict(hashes)}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def _at(content: Mapping[str, Any], dotted: str) -> Any:
    """The value of `student.model`."""
    found: Any = content
    for key in dotted.split("."):
        found = found[key]
    return found


def content_hash(path: Path) -> str:
    """BLAKE2b over the names and bytes of a file or of everything in a folder."""
    total = hashlib.blake2b(digest_size=16)
    for file in [path] if path.is_file() else sorted(item for item in path.rglob("*") if item.is_file()):
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
        total.update(f"{file.relative_to(path).as_posix()}\0{found}\n".encode())
    return total.hexdigest()


def describe(error: BaseException) -> dict[str, Any]:
    """An error as data: kind, cause, where, fix, exit_code; the same words the command line shows."""
    return as_known(error).to_json()


def as_known(error: BaseException) -> RobustDistillError:
    """Any error as one of ours, with a sentence and an exit code."""
    if isinstance(error, RobustDistillError):
        return error
    if isinstance(error, Stopped | KeyboardInterrupt):
        return ServiceFailed("it was stopped", fix="start it again: it goes on where it was")
    if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
        return of_system(error)
    fix = "the whole traceback: run it again with --debug"
    return RobustDistillError(f"unexpected {type(error).__name__}: {error}", fix=fix)
