"""New data noticed: what has come into an S3 prefix or a folder is validated and added to the workspace's data.

    python flows/watch.py --workspace DIR --from s3://bucket/prefix        or --from FOLDER

Examples are added, none is taken away: CLASS/FILE images beside those of the class, one .npz as further rows. With a
Prefect server the event `robustdistill.data.changed` follows, on which `retrain` is started (prefect.yaml).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import robustdistill  # noqa: F401  switches telemetry off before Prefect is imported

# isort: split
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed

from robustdistill.actions import watch as actions
from robustdistill.services.prefect_notify import TOLD, tell
from robustdistill.workspace import Workspace

HELPS = {
    "source": "where new data are put: s3://BUCKET/PREFIX, or a folder",
    "workspace": "folder made by `robustdistill init`",
    "endpoint": "of an S3 server that is not Amazon's; default: $AWS_ENDPOINT_URL_S3",
    "settle": "seconds for which a file in a folder has to lie still before it is taken",
}


@task(cache_policy=NO_CACHE, name="look")
def look(workspace: Workspace, source: str, endpoint: str | None, settle: float) -> actions.Look:
    return actions.look(workspace, source, endpoint=endpoint, settle=settle)


@flow(name="watch", **TOLD)
def watch(
    source: str, workspace: str = ".", endpoint: str | None = None, settle: float = actions.SETTLE
) -> State[dict[str, Any]]:
    """Take what is new at a place into the data. Nothing new: nothing happens."""
    here = Workspace.find(Path(workspace))
    summary = look(here, source, endpoint, settle).summary(here)
    tell("watch", here.name, summary.outcome, summary.sentence)
    name = "Completed" if summary.exit_code == 0 else summary.outcome.title()
    return Completed(name=name, message=summary.sentence, data=summary.to_json())


if __name__ == "__main__":
    from robustdistill.launch import main

    main(watch, HELPS, {"source": "--from"})
