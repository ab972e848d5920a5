"""The main job: from raw data to a promoted student.

    python flows/retrain.py --workspace DIR          no server needed; or deploy it, see prefect.yaml

Wiring only: order, retries, artifacts. What a stage does stands in `robustdistill/stages`, what is decided in
`robustdistill/gate`, what is written to the registry in `robustdistill/actions`.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture, wait
from prefect.states import Completed, State
from prefect.task_runners import ThreadPoolTaskRunner

from robustdistill.actions import chain, decide, summary
from robustdistill.actions.session import Session, session
from robustdistill.errors import GateRefused, ServiceFailed
from robustdistill.workspace import Workspace

SLOTS = threading.BoundedSemaphore(chain.stages_at_once())


def _worth_retrying(_task: Any, _run: Any, state: State[Any]) -> bool:
    """A service may come back; bad input and refusals stay what they are."""
    return isinstance(state.result(raise_on_failure=False), ServiceFailed)


@task(cache_policy=NO_CACHE, task_run_name="{name}", retries=1, retry_delay_seconds=5, retry_condition_fn=_worth_retrying)
def stage(root: str, name: str) -> None:
    with SLOTS:
        chain.run_stage(Workspace.find(Path(root)), name)


def run_stages(root: str, names: list[str]) -> None:
    """The named stages, each as soon as those it reads are done; the first error of the chain is raised."""
    futures: dict[str, PrefectFuture[None]] = {}
    for name in names:
        before = [futures[parent] for parent in chain.parents(name) if parent in futures]
        futures[name] = stage.submit(root, name, wait_for=before)
    wait(list(futures.values()))
    for future in futures.values():
        future.result()
