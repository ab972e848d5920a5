"""The champion judged again on today's test set, and by harder attacks with fresh draws.

    python flows/rescore.py --workspace DIR

Ends with code 1 if the champion no longer satisfies policy.yaml. A fall below the interval of its recorded robust
accuracy is the event `robustdistill.champion.drifted`. Nothing is moved: that is for a person or `promote`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import robustdistill  # noqa: F401  switches telemetry off before Prefect is imported

# isort: split
from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed

from robustdistill.actions import by_hand, chain, report, version
from robustdistill.actions.session import Session, session
from robustdistill.actions.summary import Summary
from robustdistill.services import dvc_cli, prefect_events
from robustdistill.services.prefect_notify import TOLD, tell
from robustdistill.workspace import Workspace

HELPS = {
    "workspace": "folder made by `robustdistill init`",
    "reason": "why it runs, shown with the run in MLflow and Prefect",
}


@task(cache_policy=NO_CACHE, name="prepare today's data")
def prepare_data(current: Session) -> list[str]:
    """Brings what the judge reads up to date with data/; returns the stages that ran."""
    version.version_data(current.workspace)
    version.bring_results(current.workspace, chain.JUDGED_ON)
    todo = [name for name in dvc_cli.changed(current.workspace.root) if name in chain.JUDGED_ON]
    for name in todo:
        chain.run_stage(current.workspace, name, current.run)
    return todo


@task(cache_policy=NO_CACHE, name="judge the champion")
def judge_champion(current: Session) -> Summary:
    summary = by_hand.judge_champion(current)
    if summary.verdict:
        create_markdown_artifact(
            report.verdict_markdown(summary.verdict), key="champion", description="the champion, judged today"
        )
    return summary


@flow(name="rescore", **TOLD)
def rescore(workspace: str = ".", reason: str = "by hand") -> State[dict[str, Any]]:
    """Judge the champion again under today's data, threat model and policy."""
    here = Workspace.find(Path(workspace))
    with session(here, str(flow_run.get_id()), name=f"rescore {flow_run.get_name()}", reason=reason) as current:
        prepare_data(current)
        summary = current.conclude(judge_champion(current))
    if current.drift:  # now that the workspace is free
        prefect_events.emit(prefect_events.CHAMPION_DRIFTED, here.name, current.drift)
    tell("rescore", here.name, "drifted" if current.drift else summary.outcome, summary.sentence)
    return Completed(name="Completed" if summary.exit_code == 0 else summary.outcome.title(), data=summary.to_json())


if __name__ == "__main__":
    from robustdistill.launch import main

    main(rescore, HELPS)
