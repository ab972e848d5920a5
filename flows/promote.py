"""Promote a candidate by hand, or roll the champion back.

    python flows/promote.py --workspace DIR --version 3 --by "the on-call team" --why "approved after review"
    python flows/promote.py --workspace DIR --waiting --by "the promoter's worker" --why "handed over"
    python flows/promote.py --workspace DIR --rollback --by "the on-call team" --why "complaints since noon"

--waiting takes what a flow without the right to move the champion left with the alias `waiting`, if anything; an event
starts it (prefect.yaml). A candidate is judged again under today's data and policy first. A rollback is not: it has to
work when all else fails.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import robustdistill  # noqa: F401  switches telemetry off before Prefect is imported

# isort: split
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed

from robustdistill.actions import by_hand, take_over
from robustdistill.actions.session import Session, session
from robustdistill.actions.summary import Summary
from robustdistill.errors import BadInput
from robustdistill.gate.verdict import Verdict
from robustdistill.services.prefect_notify import TOLD, tell
from robustdistill.workspace import Workspace

HELPS = {
    "workspace": "folder made by `robustdistill init`",
    "version": "version of NAME-candidates to promote; with --rollback: version of NAME (default: the one before)",
    "rollback": "move the champion back instead",
    "waiting": "promote the candidate that waits for the promoter, if there is one",
    "patience": "minutes to wait for another run that holds the workspace",
    "by": "who answers for it; kept in the promotion's record",
    "why": "the reason; kept in the promotion's record",
}


@task(cache_policy=NO_CACHE, name="judge again")
def judge_again(current: Session, version: int) -> Verdict:
    return by_hand.judge_candidate(current, version)


@task(cache_policy=NO_CACHE, name="promote")
def move(current: Session, version: int, result: Verdict, by: str, why: str) -> Summary:
    return by_hand.promote_candidate(current, version, result, by=by, why=why)


@task(cache_policy=NO_CACHE, name="roll back")
def roll_back(current: Session, version: int | None, by: str, why: str) -> Summary:
    return by_hand.roll_back(current, version, by=by, why=why)


@task(cache_policy=NO_CACHE, name="take over")
def take_what_waits(current: Session, by: str, why: str) -> Summary:
    return take_over.take_over(current, by=by, why=why)


@flow(name="promote", **TOLD)
def promote(
    by: str,
    why: str,
    workspace: str = ".",
    version: int | None = None,
    rollback: bool = False,
    waiting: bool = False,
    patience: int = 0,
) -> State[dict[str, Any]]:
    """Promote a version of NAME-candidates that passes today's gate, or roll the champion back."""
    if version is None and not rollback and not waiting:
        raise BadInput(
            "which version?",
            fix="--version N of NAME-candidates (robustdistill versions lists them), --waiting, or --rollback",
        )
    by_hand.require_said(by, why)
    here = Workspace.find(Path(workspace))
    by_hand.require_there(here, version, rollback=rollback)
    take_over.wait_until_free(here, patience)
    with session(here, str(flow_run.get_id()), name=f"promote {flow_run.get_name()}", reason=why) as current:
        if rollback:
            summary = roll_back(current, version, by, why)
        elif version is None:
            summary = take_what_waits(current, by, why)
        else:
            summary = move(current, version, judge_again(current, version), by, why)
        current.conclude(summary)
    tell("promote", here.name, summary.outcome, summary.sentence)
    return Completed(name="Completed" if summary.exit_code == 0 else summary.outcome.title(), data=summary.to_json())


if __name__ == "__main__":
    from robustdistill.launch import main

    main(promote, HELPS)
