"""One sentence to people, by a notification block of Prefect's server; off unless ROBUSTDISTILL_NOTIFY names one.

    ROBUSTDISTILL_NOTIFY=slack-webhook/NAME     any block that notifies, or `webhook/NAME`, which gets {"text": …}

The address, which is a secret, stays in the block. What goes wrong here is a line in the log and never a failed run.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
from pathlib import Path
from typing import Any

from robustdistill.errors import RobustDistillError
from robustdistill.services import prefect_events
from robustdistill.services.bounded import within
from robustdistill.workspace import Workspace

VARIABLE = "ROBUSTDISTILL_NOTIFY"
SECONDS = 30.0
# the rest is no news
VERDICTS = frozenset(("promoted", "challenger", "waiting", "refused", "unhealthy", "drifted", "ingested"))
_LOG = logging.getLogger(__name__)


def tell(flow: str, model: str, outcome: str, sentence: str) -> bool:
    """Notifies of what a run came to, if that is news, with the run's page; whether it was sent. Raises nothing."""
    return outcome in VERDICTS and _send(f"{model}: {flow}: {outcome}: {sentence}", _page())


def failed(flow: Any, flow_run: Any, state: Any) -> None:
    """Prefect's hook for a run that failed or crashed: an event and a notification. Raises nothing."""
    try:
        model = Workspace.find(Path(str(flow_run.parameters.get("workspace", ".")))).name
    except (RobustDistillError, OSError):
        model = ""
    cause = str(prefect_events.clean(str(state.message or state.name)))
    if model:
        payload = {"flow": flow.name, "state": state.name, "cause": cause, "run": str(flow_run.id)}
        prefect_events.emit(prefect_events.RUN_FAILED, model, payload)
    _send(f"{model or 'robustdistill'}: {flow.name} {str(state.name).lower()}: {cause}", _page(flow_run.id))


TOLD: dict[str, Any] = {"on_failure": [failed], "on_crashed": [failed]}  # options of each flow


def _send(text: str, page: str) -> bool:
    slug = os.environ.get(VARIABLE, "")
    if not slug:
        return False
    if not prefect_events.is_heard():
        _LOG.warning("%s is set, and there is no Prefect server that keeps the block", VARIABLE)
        return False
    body = f"{prefect_events.clean(text)}\n{page}".strip()
    failure = within(SECONDS, lambda: _notify(slug, body))
    if failure is not None:
        # An address is a secret of the block, and errors of HTTP clients repeat it: only the kind is told.
        _LOG.warning("%s: nobody was notified (%s)", slug, type(failure).__name__)
    return failure is None


def _notify(slug: str, body: str) -> None:
    import prefect.blocks.notifications
    import prefect.blocks.webhook  # noqa: F401  both make their blocks known to `load`
    from prefect.blocks.core import Block

    block = _done(Block.load(slug))
    if slug.startswith("webhook/"):
        _done(block.call({"text": body})).raise_for_status()
    else:
        with block.raise_on_failure():
            _done(block.notify(body, subject="robustdistill"))


def _done(answer: Any) -> Any:
    """Some blocks answer at once, some by a coroutine, depending on where they are asked."""
    return asyncio.run(answer) if inspect.iscoroutine(answer) else answer


def _page(run: object = None) -> str:
    """Address of the run's page; "" if there is none."""
    from prefect.runtime import flow_run
    from prefect.utilities.urls import url_for

    number = run or flow_run.get_id()
    return (url_for("flow-run", obj_id=str(number)) or "") if number else ""
