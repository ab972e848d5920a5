"""What happened to a model, told to Prefect's server, whose automations (prefect.yaml) start the flows that follow.

Without a server of one's own (PREFECT_API_URL) nobody could listen, so nothing is sent and nothing is started. A server
that is away costs SECONDS and a line in the log; it never ends a run.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Mapping
from typing import Any

from robustdistill.services.bounded import within

DATA_CHANGED = "robustdistill.data.changed"
CHAMPION_DRIFTED = "robustdistill.champion.drifted"
CANDIDATE_WAITING = "robustdistill.candidate.waiting"
RUN_FAILED = "robustdistill.run.failed"
EVENTS = (DATA_CHANGED, CHAMPION_DRIFTED, CANDIDATE_WAITING, RUN_FAILED)

SECONDS = 10.0  # for connecting, sending and the server's answer together
_LONGEST = 1000  # characters of one value: an event is a line, not a log
_SECRET_NAME = re.compile("SECRET|PASSWORD|PASSWD|TOKEN|AUTH_STRING|API_KEY|CREDENTIAL")
_SHORTEST_SECRET = 6  # a shorter value of such a variable says "true" or "1", not a secret
_USER_OF_URL = re.compile(r"(?<=://)[^/@\s]+@")
_LOG = logging.getLogger(__name__)

Value = str | int | float | bool | None


def resource(model: str) -> str:
    """The id under which events of a registered model are filed; a trigger that matches it hears of no other model."""
    return f"robustdistill.model.{model}"


def is_heard() -> bool:
    """Whether a Prefect server of one's own is named, so that somebody may listen."""
    from prefect.settings import PREFECT_API_URL

    return bool(PREFECT_API_URL.value())


def emit(event: str, model: str, payload: Mapping[str, Value] | None = None) -> bool:
    """Tells Prefect's server that `event`, one of EVENTS, happened to `model`; returns whether the server has it.

    payload: what a trigger's template reads as `{{ event.payload.KEY }}`; `clean` is applied to it. Inside a flow the
    event names its run. Raises nothing but ValueError, for an event that is not on the list.
    """
    if event not in EVENTS:
        raise ValueError(f"unknown event {event!r}")
    if not is_heard():
        _LOG.debug("%s of %s: no Prefect server is named, so nobody is told", event, model)
        return False
    message = _event(event, model, payload or {})
    failure = within(SECONDS, lambda: asyncio.run(_send(message)))
    if failure is not None:
        why = clean(f"{type(failure).__name__}: {failure}")
        _LOG.warning("%s of %s: Prefect's server was not told (%s)", event, model, why)
        return False
    _LOG.info("%s of %s: told to Prefect's server", event, model)
    return True


def clean(value: Value) -> Value:
    """A value as it may leave this process: no user of a URL, no value of a variable that names a secret, not long."""
    if not isinstance(value, str):
        return value
    text = _USER_OF_URL.sub("", value)
    for name, secret in os.environ.items():
        if _SECRET_NAME.search(name.upper()) and len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "***")
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _event(event: str, model: str, payload: Mapping[str, Value]) -> Any:
    from prefect.events import Event
    from prefect.runtime import flow_run

    run = flow_run.get_id()
    related = [{"prefect.resource.id": f"prefect.flow-run.{run}", "prefect.resource.role": "flow-run"}] if run else []
    return Event(
        event=event,
        resource={"prefect.resource.id": resource(model), "prefect.resource.name": model},
        related=related,
        payload={key: clean(value) for key, value in payload.items()},
    )


async def _send(event: Any) -> None:
    from prefect.events.clients import PrefectEventsClient

    # Each event is confirmed by the server before `emit` returns: the client would else ask every 700th.
    async with PrefectEventsClient(reconnection_attempts=1, checkpoint_every=1) as client:
        await client.emit(event)
