"""DVC, always as a child process: what changed, and the only door through which a stage runs.

`dvc repro --single-item STAGE` hashes what the stage reads, runs its command and records what it wrote. Two stages that
do not read each other may run at the same time: DVC holds its lock only while it reads and writes its own files.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from robustdistill import budget, errors
from robustdistill.journal import Journal
from robustdistill.services import dvc_locks, git_cli, leash
from robustdistill.stages import catalog
from robustdistill.workspace import Workspace

# `verify`: without it DVC hands out altered objects of a remote silently.
CONFIG = """\
[core]
    analytics = false
    check_update = false
    remote = local
['remote "local"']
    url = ../.work/dvc-remote
    verify = true
"""
TAIL_LINES = 12
BUSY = "it is being blocked by"  # how DVC says that another one has the files
GONE = frozenset(("deleted", "not in cache"))  # words of `dvc status`
DIGEST = re.compile(r"[0-9a-f]{32}\.dir")
DATA_FIX = "bring it back with `git checkout data.dvc`, or remove it: the next run writes it anew from data/"
STOP_SECONDS = 5.0
POLL_SECONDS = 0.25

_running: set[subprocess.Popen[bytes]] = set()
_stopping = threading.Event()


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """For a DVC child: no analytics, and our own `robustdistill` first on PATH, which the stages' commands name."""
    kept = git_cli.environment()
    scripts = str(Path(sys.executable).parent)
    kept["PATH"] = os.pathsep.join([scripts, kept.get("PATH", os.defpath)])
    return kept | {"DVC_NO_ANALYTICS": "1", "DO_NOT_TRACK": "true", "PYTHONUNBUFFERED": "1"} | dict(extra or {})


def dvc(root: Path, *arguments: str) -> str:
    """One short DVC command in the workspace `root`; its standard output.

    Raises BadInput where git or DVC has lost the folder, ServiceFailed with DVC's last words.
    """
    require_repository(root)
    return _dvc(root, *arguments)


def _dvc(root: Path, *arguments: str) -> str:
    dvc_locks.mend(root)
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", *arguments]
    done = subprocess.run(command, cwd=root, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise errors.ServiceFailed(f"dvc {arguments[0]} failed: {_cause(done.stderr or done.stdout)}", where=str(root))
    return done.stdout


def _cause(text: str) -> str:
    """DVC's own sentences where it has any, else its last words: around them stand hints and warnings of others."""
    lines = [line.strip() for line in text.strip().splitlines()]
    said = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return "\n".join((said or lines)[-TAIL_LINES:])


def init(root: Path, remote: str | None = None) -> None:
    """DVC in a git repository. remote: URL or absolute folder; default: one inside the workspace, which no clone has.

    Raises BadInput for a remote that DVC does not understand.
    """
    folder = root / ".dvc"
    if folder.is_dir():  # what is left of a lost one: its cache may hold data that are nowhere else
        (folder / ".gitignore").write_text("/config.local\n/tmp\n/cache\n", encoding="utf-8")
    else:
        _dvc(root, "init", "--quiet")
    (folder / "config").write_text(CONFIG, encoding="utf-8")
    if remote is None:
        return
    try:
        dvc(root, "remote", "modify", "local", "url", remote)
    except errors.ServiceFailed as error:
        raise errors.BadInput(
            error.cause, where="--remote", fix="a folder, or a URL such as s3://bucket/path"
        ) from error


def lost(root: Path) -> list[str]:
    """Which of .git and .dvc the workspace lacks, or has only as an empty folder."""
    kept = {".git": (root / ".git").is_file() or (root / ".git" / "HEAD").is_file()}
    kept[".dvc"] = (root / ".dvc" / "config").is_file()
    return [name for name, is_there in kept.items() if not is_there]


def require_repository(root: Path) -> None:
    """Raises BadInput unless the workspace still is a repository of git and of DVC."""
    lacking = lost(root)
    if lacking:
        fix = "robustdistill upgrade makes it anew from what is there; data and results stay"
        raise errors.BadInput(f"the workspace has lost its {' and its '.join(lacking)}", where=str(root), fix=fix)


def add_data(root: Path) -> str:
    """Versions data/ as it is now: writes data.dvc. Returns the digest."""
    dvc(root, "add", "--quiet", "data")
    found = digest(root)
    if found is None:
        raise errors.ServiceFailed("dvc add wrote no digest", where=str(root / "data.dvc"))
    return found


def digest(root: Path) -> str | None:
    """The hash of data/ as data.dvc records it; None before data was added. Read without DVC. Raises BadInput."""
    path = root / "data.dvc"
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))["outs"][0]["md5"]
    except FileNotFoundError:
        return None
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, IndexError, TypeError) as error:
        raise errors.BadInput("not a file that `dvc add data` wrote", where=str(path), fix=DATA_FIX) from error
    if not isinstance(found, str) or not DIGEST.fullmatch(found):
        cause = f"outs[0].md5 is no digest of a folder as `dvc add data` writes it: {str(found)[:40]!r}"
        raise errors.BadInput(cause, where=str(path), fix=DATA_FIX)
    return found


def recorded(root: Path) -> dict[str, tuple[str, str]]:
    """What dvc.lock says of the results: folder -> (stage, digest). Read without DVC; empty where there is no lock."""
    path = root / "dvc.lock"
    try:
        stages = yaml.safe_load(path.read_text(encoding="utf-8"))["stages"]
        return {out["path"]: (name, str(out["md5"])) for name, each in stages.items() for out in each.get("outs", [])}
    except FileNotFoundError:
        return {}
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        fix = "remove it; `dvc repro` writes it anew"
        raise errors.BadInput("not a file that DVC wrote", where=str(path), fix=fix) from error


def status(root: Path) -> dict[str, list[Any]]:
    """What differs from dvc.lock, by stage: `dvc status --json`. Empty where nothing does."""
    text = dvc(root, "status", "--json")
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise errors.ServiceFailed(f"dvc status said no JSON: {text[:200]}", where=str(root)) from error
    return dict(found)


def _require_pipeline(root: Path) -> None:
    """Raises BadInput unless dvc.yaml has every stage: to DVC a stage that is not there has not changed."""
    path = root / "dvc.yaml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        lacking = {name.partition("@")[0] for name in catalog.STAGES} - set(content["stages"])
    except (OSError, yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise errors.BadInput("not a pipeline", where=str(path), fix="robustdistill upgrade writes it anew") from error
    if lacking:
        fix = "robustdistill upgrade writes it anew"
        raise errors.BadInput(f"the pipeline lacks {', '.join(sorted(lacking))}", where=str(path), fix=fix)


def changed(root: Path) -> list[str]:
    """The stages that have to run, in order: those that changed and all that read from them."""
    _require_pipeline(root)
    return catalog.with_descendants(name for name in status(root) if name in catalog.STAGES)


def restorable(root: Path) -> list[str]:
    """The stages whose results are gone while all they were made from is as dvc.lock says, or gone likewise: in order,
    as in a clone. Whoever brings their folders back has nothing to run."""
    if all((root / folder).is_dir() for folder in recorded(root)):
        return []
    _require_pipeline(root)
    found, known, kept = status(root), {name for name, _ in recorded(root).values()}, []
    for name in catalog.STAGES:
        whole = all(parent in kept for parent in catalog.parents(name) if parent in found)
        if name in found and name in known and whole and GONE.issuperset(_leaves(found[name])):
            kept.append(name)
    return kept


def _leaves(found: Any) -> Iterator[Any]:
    """The words of a status: what is nested in lists and mappings."""
    if isinstance(found, dict | list):
        for item in found.values() if isinstance(found, dict) else found:
            yield from _leaves(item)
    else:
        yield found


def repro(root: Path, stage: str, env: Mapping[str, str] | None = None) -> None:
    """Runs one stage if it changed, through DVC, in a process group of its own that ends with this process.

    Its output goes to .work/logs/<stage>.log. Waits while a DVC of somebody else has the stage's files. Raises what
    the stage itself raised, BadInput where git or DVC has lost the folder, ServiceFailed, or OutOfTime: after the run's
    time it is not begun, and cut off if it does not stop by itself.
    """
    require_repository(root)
    budget.require(f"{stage} was not begun")
    workspace = Workspace(root)
    log, record = workspace.log(stage), workspace.error(stage)
    log.parent.mkdir(parents=True, exist_ok=True)
    record.unlink(missing_ok=True)
    _wait_for_others(workspace, catalog.get(stage))
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", stage]
    with log.open("wb") as sink:
        code = _supervise(command, root, environment({**leash.own(), **(env or {})}), sink)
    if code != 0:
        raise _failure(stage, code, log, record)


def _wait_for_others(workspace: Workspace, stage: catalog.Stage) -> None:
    def tell(entry: dvc_locks.Entry) -> None:
        path = os.path.relpath(entry.path, workspace.root)
        message = f"waits for `{entry.command}` (pid {entry.pid}), which has {path}"
        Journal(workspace.journal, stage.name).write("note", message=message)

    reads = [workspace.root / path for path in stage.reads.values()]
    dvc_locks.mend(workspace.root)
    dvc_locks.wait(workspace.root, reads, [workspace.root / stage.out], tell, _Ending())
    budget.require(f"{stage.name} was not begun")


class _Ending:
    """When a stage waits no longer: the run is being stopped, or its time is over."""

    wait = _stopping.wait

    def is_set(self) -> bool:
        return _stopping.is_set() or budget.spent()


@contextmanager
def stopping_children() -> Iterator[None]:
    """Around a flow: what ends it early (Ctrl-C, SIGTERM, an error) also ends the stages its threads wait for."""
    _stopping.clear()
    try:
        yield
    except BaseException:
        stop_all()
        raise


def stop_all() -> None:
    """Ends every stage this process runs and lets none begin until `stopping_children` is entered again."""
    _stopping.set()
    for process in list(_running):
        _kill_group(process)


def _supervise(command: list[str], root: Path, env: Mapping[str, str], sink: Any) -> int:
    """Runs a command to its end, or to ours. A waiting thread also notices that its interpreter is being shut down."""
    if _stopping.is_set():
        raise errors.ServiceFailed("the run is being stopped")
    process = subprocess.Popen(
        command, cwd=root, env=env, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True
    )
    _running.add(process)
    try:
        while threading.main_thread().is_alive() and not _stopping.is_set() and not budget.overdue():
            with suppress(subprocess.TimeoutExpired):
                code = process.wait(POLL_SECONDS)
                if code == 0 or not _stopping.is_set():
                    return code
        if budget.overdue():
            raise budget.out_of_time(f"{command[-1]} was cut off; what it did after its last checkpoint is done again")
        raise errors.ServiceFailed("the run was stopped", fix="start it again: it goes on where it was")
    finally:
        _kill_group(process)
        _running.discard(process)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """The whole process group: politely, then by force. Does nothing after a success: the group is empty then."""
    if process.poll() == 0:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(STOP_SECONDS)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


RAISED = (errors.GateRefused, errors.BadInput, errors.Unhealthy, errors.ServiceFailed, errors.OutOfTime)
KINDS: Mapping[int, type[errors.RobustDistillError]] = {kind.exit_code: kind for kind in RAISED}


def _failure(stage: str, code: int, log: Path, record: Path) -> errors.RobustDistillError:
    """The stage's own error if it left one, else the last lines of its log."""
    try:
        said = json.loads(record.read_text(encoding="utf-8"))
        kind = KINDS.get(said["exit_code"], errors.RobustDistillError)
        return kind(f"{stage}: {said['cause']}", where=said["where"], fix=said["fix"])
    except (FileNotFoundError, json.JSONDecodeError, KeyError, TypeError):
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-TAIL_LINES:])
        if BUSY in tail:
            fix = "wait until that process has ended and run it again: it goes on where it was"
            return errors.ServiceFailed(f"{stage} was held by another DVC:\n{tail}", where=str(log), fix=fix)
        fix = "if it was killed, memory may have run out: choose a smaller batch or model" if code else ""
        return errors.ServiceFailed(
            f"{stage} ended with code {code} and left no reason:\n{tail}", where=str(log), fix=fix
        )
