"""The main job: from raw data to a promoted student.

    python flows/retrain.py --workspace DIR          no server needed; or deploy it, see prefect.yaml

Wiring only: order, retries, artifacts. What a stage does stands in `robustdistill/stages`, what is decided in
`robustdistill/gate`, what is written to the registry in `robustdistill/actions`.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
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

from robustdistill import budget
from robustdistill.actions import chain, data_news, decide, ended_early, report, version
from robustdistill.actions.register import Registered
from robustdistill.actions.session import Session, session
from robustdistill.actions.summary import Summary
from robustdistill.errors import BadInput, GateRefused, OutOfTime, ServiceFailed, ServiceRefused, Superseded
from robustdistill.gate.verdict import Verdict
from robustdistill.services import dvc_cli, prefect_events
from robustdistill.services.prefect_notify import TOLD, tell
from robustdistill.services.prefect_progress import ProgressArtifacts
from robustdistill.stages.catalog import STAGES, parents
from robustdistill.workspace import Workspace

HELPS = {
    "workspace": "folder made by `robustdistill init`",
    "reason": "why it runs, shown with the run in MLflow and Prefect",
    "plan": "only say what would run",
    "dry_run": "train and judge, and say what would be promoted; register and promote nothing",
    "data_digest": "refuse unless the data have this digest; `robustdistill data use` brings earlier ones back",
    "max_minutes": "stop at a checkpoint after so long, exit code 75; the next run goes on there",
}


@dataclass(frozen=True)
class Asked:
    """The wishes of a run that change its course; see `retrain`."""

    plan: bool = False
    dry_run: bool = False
    data_digest: str | None = None
    max_minutes: float | None = None

    def require_sense(self) -> None:
        """Raises BadInput before a run is opened in MLflow."""
        if self.plan and self.dry_run:
            raise BadInput(
                "a plan trains nothing, a dry run all that has to be", where="--plan, --dry-run", fix="give one of them"
            )
        if self.max_minutes is not None:
            budget.require_positive(self.max_minutes)

    def marks(self) -> dict[str, str]:
        """Tags of the run in MLflow."""
        marks = {"robustdistill.dry_run": "true"} if self.dry_run else {}
        return marks | ({} if self.max_minutes is None else {"robustdistill.max_minutes": f"{self.max_minutes:g}"})


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
        budget.require(f"{name} was not begun")
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
def version_data(current: Session, expected: str | None, plan: bool) -> list[str]:
    """Versions data/ if it changed, shows what changed since the last run, and returns the stages that have to run."""
    changes = version.version_data(current.workspace, expected=expected, plan=plan)
    waiting = data_news.waiting(current.workspace)  # without `changes` in a plan, which leaves nothing
    if shown := waiting + changes * plan:
        create_markdown_artifact(shown, key="data-changes", description="what changed in the data")
    if not plan:
        current.changes = waiting
        version.bring_results(current.workspace)
    return list(STAGES) if changes else dvc_cli.changed(current.workspace.root)


@task(name="reconcile the registry", **SERVICE)
def reconcile(current: Session, dry_run: bool) -> list[str]:
    """Mends what a crashed run left behind; runs beside the first stages, because MLflow opens slowly."""
    return decide.reconciled(current, dry_run=dry_run)


@task(name="choose the first weights", **SERVICE)
def warm_start(current: Session) -> None:
    decide.warm_start(current)


@task(cache_policy=NO_CACHE, name="qualify the teacher")
def qualify(current: Session) -> None:
    decide.require_worthy_teacher(current.workspace)


@task(name="judge the references", **SERVICE)
def judge_references(current: Session) -> None:
    decide.judge_references(current)


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


@task(name="foresee", **SERVICE)
def foresee(current: Session, result: Verdict) -> decide.Decision:
    return decide.foreseen(current, result)


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


def _trained(current: Session, progress: ProgressArtifacts, asked: Asked) -> decide.Decision | None:
    """All stages up to date, within the run's time. A decision if the teacher did not qualify."""
    mended = reconcile.submit(current, asked.dry_run)
    try:
        return _through_stages(current, progress, asked, mended)
    except BaseException:
        mended.wait()  # it may be moving an alias: not beyond the workspace's lock
        raise


def _through_stages(
    current: Session, progress: ProgressArtifacts, asked: Asked, mended: PrefectFuture[list[str]]
) -> decide.Decision | None:
    if decide.asks_for_champion(current.workspace, current.due):
        mended.result()  # or the champion is still the one before a promotion that a crash cut short
        warm_start(current)
    before, after = chain.split(current.due)
    run_stages(current, progress, before)
    try:
        qualify(current)
    except GateRefused as error:
        current.withheld = dict.fromkeys(after, "the teacher did not qualify")
        mended.wait()  # what stays in use is said of the registry as it is then
        return decide.refused_teacher(current, error.cause)
    run_stages(current, progress, after)
    current.up_to_date = True
    mended.result()
    if asked.dry_run or asked.max_minutes:
        judge_references(current)
    budget.require("stopped before the gate")
    return None


def _decided(current: Session, asked: Asked) -> decide.Decision:
    if asked.dry_run:
        return foresee(current, gate(current))
    candidate = register(current)
    return promote(current, candidate, gate(current))


def _chain(current: Session, progress: ProgressArtifacts, asked: Asked) -> Summary:
    decide.require_sound_policy(current.workspace)
    try:
        with budget.limited(asked.max_minutes):  # not what follows: what is registered is decided on
            current.due = version_data(current, asked.data_digest, asked.plan)
            if asked.plan:
                names = ", ".join(current.due) or "nothing"
                return Summary(str(current.workspace.root), "plan", f"would run: {names}")
            done = _trained(current, progress, asked)
    except OutOfTime as error:
        return ended_early.out_of_time(current, asked.max_minutes or 0.0, error)
    except Superseded as error:
        return ended_early.superseded(current, error)
    return _concluded(current, done or _decided(current, asked))


@flow(name="retrain", task_runner=ThreadPoolTaskRunner(max_workers=16), validate_parameters=True, **TOLD)  # type: ignore[arg-type]
def retrain(
    workspace: str = ".",
    reason: str = "by hand",
    plan: bool = False,
    dry_run: bool = False,
    data_digest: str | None = None,
    max_minutes: float | None = None,
) -> State[dict[str, Any]]:
    """Data to verdict. An unchanged workspace retrains nothing.

    workspace: folder made by `robustdistill init`. reason: why it runs, shown with the run. plan: only says what would
    run. dry_run: trains, judges and says what would be promoted; a run without it then trains nothing again.
    data_digest: refuses unless the data have this digest (an event names the data it is about). max_minutes: from the
    start of the run (not of its wait for another one) until it stops at a checkpoint, registering nothing.
    """
    asked = Asked(plan, dry_run, data_digest, max_minutes)
    asked.require_sense()
    here = Workspace.find(Path(workspace))
    run = str(flow_run.get_id())
    progress = ProgressArtifacts()
    name, marks = f"retrain {flow_run.get_name()}", asked.marks()
    with session(here, run, name=name, reason=reason, listeners=[progress], marks=marks) as current:
        summary = current.conclude(_chain(current, progress, asked))
    if current.awaits:  # now that the workspace is free
        prefect_events.emit(prefect_events.CANDIDATE_WAITING, here.name, {"what": current.awaits, "run": run})
    tell("retrain", here.name, summary.outcome, summary.sentence)
    state = "Completed" if summary.exit_code == 0 else summary.outcome.title()
    return Completed(name=state, message=summary.sentence, data=summary.to_json())


if __name__ == "__main__":
    from robustdistill.launch import main

    main(retrain, HELPS)
