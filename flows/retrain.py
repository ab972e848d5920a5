"""The main job: from raw data to a promoted student.

    python flows/retrain.py --workspace DIR          no server needed; or deploy it, see prefect.yaml

Wiring only: order, retries, artifacts. What a stage does stands in `robustdistill/stages`, what is decided in
`robustdistill/gate`, what is written to the registry in `robustdistill/actions`.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import robustdistill  # noqa: F401  switches telemetry off before Prefect is imported

# isort: split
from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture, wait
from prefect.runtime import flow_run
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner

from robustdistill.actions import chain, data_news, decide, report, version
from robustdistill.actions.register import Registered
from robustdistill.actions.session import Session, session
from robustdistill.actions.summary import Summary
from robustdistill.errors import GateRefused, ServiceFailed, ServiceRefused
from robustdistill.gate.verdict import Verdict
from robustdistill.services import dvc_cli, prefect_events
from robustdistill.services.prefect_notify import TOLD, tell
from robustdistill.services.prefect_progress import ProgressArtifacts
from robustdistill.stages.catalog import STAGES, parents
from robustdistill.workspace import Workspace

HELPS = {
    "workspace": "folder made by `robustdistill init`",
    "reason": "why it runs, shown with the run in MLflow and Prefect",
    "dry_run": "only say what would run",
    "data_digest": "refuse unless data.dvc has this digest",
}
SLOTS = threading.BoundedSemaphore(chain.stages_at_once())


def _worth_retrying(_task: Any, _run: Any, state: State[Any]) -> bool:
    """A service may come back; bad input and refusals stay what they are."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, ServiceFailed) and not isinstance(error, ServiceRefused)


SERVICE: dict[str, Any] = {
    "cache_policy": NO_CACHE,
    "retries": 2,
    "retry_delay_seconds": 5,
    "retry_condition_fn": _worth_retrying,
}
PATIENT = SERVICE | {"retries": 3, "retry_delay_seconds": [10, 20, 40]}  # the remote only: all else is done by then


@task(task_run_name="{name}", **SERVICE)
def stage(current: Session, progress: ProgressArtifacts, name: str) -> str:
    with SLOTS, progress.of(name):
        chain.run_stage(current.workspace, name, current.run)
    return name


def run_stages(current: Session, progress: ProgressArtifacts, names: list[str]) -> None:
    """The named stages, each as soon as those it reads are done; the first error of the chain is raised."""
    futures: dict[str, PrefectFuture[str]] = {}
    for name in names:
        before = [futures[parent] for parent in parents(name) if parent in futures]
        futures[name] = stage.submit(current, progress, name, wait_for=before, return_state=False)
    wait(list(futures.values()))
    for future in futures.values():
        future.result()


@task(name="version data", **SERVICE)
def version_data(current: Session, expected: str | None, dry_run: bool) -> list[str]:
    """Versions data/ if it changed, shows what changed since the last run, and returns the stages that have to run."""
    changes = version.version_data(current.workspace, expected=expected, dry_run=dry_run)
    waiting = data_news.waiting(current.workspace)  # without `changes` in a dry run, which leaves nothing
    if shown := waiting + changes * dry_run:
        create_markdown_artifact(shown, key="data-changes", description="what changed in the data")
    if not dry_run:
        current.changes = waiting
        version.bring_results(current.workspace)
    return list(STAGES) if changes else dvc_cli.changed(current.workspace.root)


@task(name="reconcile the registry", **SERVICE)
def reconcile(current: Session) -> list[str]:
    """Mends what a crashed run left behind; runs beside the first stages, because MLflow opens slowly."""
    return decide.reconciled(current)


@task(name="choose the first weights", **SERVICE)
def warm_start(current: Session) -> None:
    decide.warm_start(current)


@task(cache_policy=NO_CACHE, name="qualify the teacher")
def qualify(current: Session) -> None:
    decide.require_worthy_teacher(current.workspace)


@task(name="register the student", **SERVICE)
def register(current: Session) -> Registered:
    return decide.registered(current)


@task(name="gate", **SERVICE)
def gate(current: Session) -> Verdict:
    result = decide.judge_student(current)
    create_markdown_artifact(
        report.verdict_markdown(result.to_json()), key="verdict", description="the gate, line by line"
    )
    return result


@task(name="promote", **SERVICE)
def promote(current: Session, candidate: Registered, result: Verdict) -> decide.Decision:
    return decide.settle(current, candidate, result)


@task(name="report", **SERVICE)
def write_report(current: Session, done: decide.Decision) -> Path:
    return report.write(current.workspace, current.run, done.verdict, (done.outcome, done.sentence, done.registry))


@task(name="commit the workspace", **PATIENT)
def commit(current: Session) -> None:
    version.commit(current.workspace, current.run)


def committed_report(current: Session, done: decide.Decision) -> Path:
    """The commit first, since the report names it; the report also where that fails: then it is wanted most."""
    try:
        commit(current)
    finally:
        path = write_report(current, done)
    return path


def _concluded(current: Session, done: decide.Decision) -> Summary:
    path = committed_report(current, done)
    return report.summarise(current, done.outcome, done.sentence, done.verdict, done.registry, path)


def _chain(current: Session, progress: ProgressArtifacts, data_digest: str | None, dry_run: bool) -> Summary:
    decide.require_sound_policy(current.workspace)
    todo = version_data(current, data_digest, dry_run)
    if dry_run:
        names = ", ".join(todo) or "nothing"
        return Summary(str(current.workspace.root), "dry run", f"would run: {names}")
    mended = reconcile.submit(current)
    if decide.asks_for_champion(current.workspace, todo):
        mended.result()  # or the champion is still the one before a promotion that a crash cut short
        warm_start(current)
    before, after = chain.split(todo)
    run_stages(current, progress, before)
    try:
        qualify(current)
    except GateRefused as error:
        current.withheld = dict.fromkeys(after, "the teacher did not qualify")
        mended.wait()  # what stays in use is said of the registry as it is then
        return _concluded(current, decide.refused_teacher(current, error.cause))
    run_stages(current, progress, after)
    current.up_to_date = True
    mended.result()
    candidate = register(current)
    result = gate(current)
    return _concluded(current, promote(current, candidate, result))


@flow(name="retrain", task_runner=ThreadPoolTaskRunner(max_workers=16), validate_parameters=True, **TOLD)  # type: ignore[arg-type]
def retrain(
    workspace: str = ".", reason: str = "by hand", dry_run: bool = False, data_digest: str | None = None
) -> State[dict[str, Any]]:
    """Data to verdict. An unchanged workspace retrains nothing.

    workspace: folder made by `robustdistill init`. reason: why it runs, shown with the run. dry_run: only says what
    would run. data_digest: refuse unless data.dvc has this digest (an event names the data it is about).
    """
    here = Workspace.find(Path(workspace))
    run = str(flow_run.get_id())
    progress = ProgressArtifacts()
    with session(here, run, name=f"retrain {flow_run.get_name()}", reason=reason, listeners=[progress]) as current:
        summary = current.conclude(_chain(current, progress, data_digest, dry_run))
    if current.awaits:  # now that the workspace is free
        prefect_events.emit(prefect_events.CANDIDATE_WAITING, here.name, {"what": current.awaits, "run": run})
    tell("retrain", here.name, summary.outcome, summary.sentence)
    name = "Completed" if summary.exit_code == 0 else summary.outcome.title()
    return Completed(name=name, message=summary.sentence, data=summary.to_json())


if __name__ == "__main__":
    from robustdistill.launch import main

    main(retrain, HELPS)
