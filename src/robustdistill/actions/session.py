"""One flow run on one workspace: its lock, its record in MLflow, its progress, and what came of it."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from robustdistill.actions import data_news
from robustdistill.actions.follow import Follower, Listener
from robustdistill.actions.record import Recorder
from robustdistill.actions.summary import StageRow, Summary
from robustdistill.actions.version import INPUTS
from robustdistill.config import dump
from robustdistill.services import dvc_cli, git_cli, prefect_home
from robustdistill.services.mlflow_store import Store
from robustdistill.stages.catalog import STAGES
from robustdistill.workspace import Workspace, write_atomically

PATIENCE_SECONDS = 300.0  # of a deployed run: a look at the inbox holds the workspace for as long as it copies
STORE_SECONDS = 180.0  # a fresh SQLite store migrates for seconds, on a busy machine for many


@dataclass
class Session:
    """What the tasks of one flow run share."""

    workspace: Workspace
    run: str
    recorder: Recorder
    changes: str = ""  # reports of changed data that this run shows, as markdown
    seconds: dict[str, float] = field(default_factory=dict)
    due: list[str] = field(default_factory=list)  # the stages that had to run when it began
    withheld: dict[str, str] = field(default_factory=dict)  # stage -> why it did not run although it had to
    summary: Summary | None = None
    up_to_date: bool = False  # all stages are: set by the flow that ran them
    figures: dict[str, float] = field(default_factory=dict)  # metrics beyond those of the scorecards
    files: dict[str, list[Path]] = field(default_factory=dict)  # artifacts beyond those of a flow
    drift: dict[str, float] = field(default_factory=dict)  # the fall of the champion, where there was one
    incomparable: str = ""  # why a reference could not be judged on today's data
    judged: str = ""  # the content of the candidate that was judged in this run
    awaits: str = ""  # what the promoter is called for once this run has ended

    @property
    def store(self) -> Store:
        """The opened record and registry. Raises ServiceFailed if it cannot be reached."""
        return self.recorder.store(STORE_SECONDS)

    @property
    def stopped(self) -> bool:
        """Whether its time was over before it had come to a decision."""
        return self.summary is not None and self.summary.outcome == "out of time"

    def note(self, record: Mapping[str, Any]) -> None:
        """Keeps the seconds of this run's stages, from the journal."""
        if record["event"] == "end" and record.get("run") == self.run:
            self.seconds[record["stage"]] = float(record.get("seconds", 0.0))

    def stage_rows(self) -> list[StageRow]:
        return [
            StageRow(name, True, self.seconds[name])
            if name in self.seconds
            else StageRow(name, False, withheld=self.withheld.get(name, ""))
            for name in STAGES
        ]

    def conclude(self, summary: Summary) -> Summary:
        """Keeps what the run came to, also on disk, for `robustdistill status`."""
        self.summary = summary
        text = json.dumps(summary.to_json(), indent=2, sort_keys=True) + "\n"
        write_atomically(self.workspace.work / "summary.json", text)
        return summary


def tags(workspace: Workspace, run: str, reason: str, began: str | None) -> dict[str, str]:
    """What a run is tagged with in MLflow. began: the workspace's commit when it began.

    git_commit is that one: the params and data that the stages ran on are in it, unless git_dirty says that they
    differed. What the run commits at its end is result_commit, in which they are in any case.
    """
    params = workspace.params()
    lock = workspace.root / "dvc.lock"
    return {
        "robustdistill.reason": reason,
        "robustdistill.recipe": params.name,
        "robustdistill.threat": f"{params.threat.norm} {params.threat.eps}",
        "robustdistill.data_digest": dvc_cli.digest(workspace.root) or "",
        "robustdistill.dvc_lock": git_cli.hash_file(lock) if lock.exists() else "",
        "robustdistill.git_commit": began or "",
        "robustdistill.git_dirty": str(git_cli.dirty(workspace.root, began or "", INPUTS)).lower(),
        "robustdistill.machine": f"{platform.machine()} {platform.system()}",
        "prefect.flow_run_id": run,
    }


def ending(workspace: Workspace, run: str, reason: str, began: str | None, summary: Summary | None) -> dict[str, str]:
    """What the tags are when a run ends: data and dvc.lock are now those of the results."""
    found = tags(workspace, run, reason, began)
    committed = git_cli.head(workspace.root)
    if committed and committed != began:
        found["robustdistill.result_commit"] = committed
    if summary:
        found["robustdistill.outcome"] = summary.outcome
        found["mlflow.note.content"] = f"{summary.outcome}: {summary.sentence} (reason of the run: {reason})"
    return found


def headline(workspace: Workspace) -> dict[str, str]:
    """The few params by which runs differ at first sight."""
    params = workspace.params()
    return {
        "threat": f"{params.threat.norm} {params.threat.eps}",
        "teacher": f"{params.teacher.model['name']} / {params.teacher.objective['name']}",
        "student": f"{params.student.model['name']} / {params.student.objective['name']}",
        "control": params.control.objective["name"],
        "seed": str(params.seed),
        "data": params.data.source,
    }


def artifacts(workspace: Workspace, run: str, *, changes: bool = False) -> dict[str, list[Path]]:
    """The files of a run that are kept in MLflow: folder -> files. changes: the reports of changed data, too."""
    root, out = workspace.root, workspace.artifacts
    kept: dict[str, list[Path]] = {
        "workspace": [root / name for name in ("params.yaml", "policy.yaml", "dvc.yaml", "dvc.lock", "data.dvc")],
        "report": [workspace.reports / f"{run}.html"],
        "data": [out / "prepare" / "manifest.json", out / "adversaries" / "manifest.json"],
    }
    if changes:
        kept["data"].append(data_news.path(workspace))
    for folder in sorted((out / "score").glob("*")):
        kept[f"scorecards/{folder.name}"] = [folder / "scorecard.json", folder / "curve.csv"]
    for learner in ("initial", "teacher", "student", "control"):
        kept[f"training/{learner}"] = [out / learner / "history.csv", out / learner / "summary.json"]
    return {folder: found for folder, files in kept.items() if (found := [file for file in files if file.exists()])}


def metrics(workspace: Workspace) -> dict[str, float]:
    """test/<model>/<figure> of every model that was judged."""
    found = {}
    for path in sorted((workspace.artifacts / "score").glob("*/metrics.json")):
        for key, value in json.loads(path.read_text(encoding="utf-8")).items():
            if isinstance(value, int | float):
                found[f"test/{path.parent.name}/{key}"] = float(value)
    return found


@contextmanager
def session(
    workspace: Workspace,
    run: str,
    *,
    name: str,
    reason: str,
    listeners: Sequence[Listener] = (),
    marks: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Session]:
    """The workspace's lock, its record, and followers of its journal, for as long as a flow runs. marks: more tags.

    The record ends as FINISHED, FAILED or KILLED (a run that was out of time, too) whatever happens inside; a store
    that is away is told next time.
    Reports of changed data that the run shows are kept for another one unless it finished.
    Raises BadInput if another run holds the workspace.
    """
    with workspace.lock(PATIENCE_SECONDS if prefect_home.deployed() else 0.0), dvc_cli.stopping_children():
        began = git_cli.head(workspace.root)
        recorder = Recorder(
            workspace.root,
            run=run,
            name=name,
            tags={**tags(workspace, run, reason, began), **marks},
            params=headline(workspace),
            description=f"{dump(workspace.params())['name']}: {reason}",
            work=workspace.work,
            journal=workspace.journal,
            model_name=workspace.name,
        )
        current = Session(workspace, run, recorder)
        recorder.start()
        status = "FAILED"
        try:
            with Follower(workspace.journal, [current.note, *listeners]):
                yield current
            status = "KILLED" if current.stopped else "FINISHED"
        except (KeyboardInterrupt, SystemExit):
            status = "KILLED"
            raise
        finally:
            last = ending(workspace, run, reason, began, current.summary)
            files = artifacts(workspace, run, changes=bool(current.changes)) | current.files
            figures = metrics(workspace) | current.figures
            recorded = recorder.finish(status, artifacts=files, metrics=figures, tags=last)
            if current.changes and recorded and status == "FINISHED":
                data_news.told(workspace)
