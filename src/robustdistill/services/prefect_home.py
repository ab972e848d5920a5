"""Prefect without a server of one's own: an ephemeral one that keeps its records in the workspace."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from robustdistill.errors import ServiceFailed

LEAST_BYTES = 16 * 2**20  # SQLite and its journal need some room
STARTUP_SECONDS = 120  # Prefect's own limit of 20 s is too near on a busy machine


def deployed() -> bool:
    """Whether a worker started this process for a flow run: nobody waits at a terminal."""
    return bool(os.environ.get("PREFECT__FLOW_RUN_ID"))


@contextmanager
def configured(home: Path, *, quiet: bool = True) -> Iterator[bool]:
    """Prefect's settings for one process: the server named by PREFECT_API_URL, else an ephemeral one kept in `home`.

    Yields whether the server is embedded. Analytics are off either way. The heartbeat is off where the server is
    embedded, because its thread holds every flow's end back by a second and nobody is there to listen.
    quiet: Prefect's own log stays out of the terminal.
    """
    from prefect.settings import (
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        PREFECT_HOME,
        PREFECT_SERVER_ANALYTICS_ENABLED,
        PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
        temporary_settings,
    )

    embedded = not os.environ.get("PREFECT_API_URL")
    settings: dict[Any, Any] = {PREFECT_SERVER_ANALYTICS_ENABLED: False}
    if embedded:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        end_orphans(home)
        settings |= {
            PREFECT_HOME: home,
            PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
            PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: STARTUP_SECONDS,
        }
    if quiet:
        _mute_console()
    with temporary_settings(settings), _named_if_away(home, embedded):
        yield embedded


@contextmanager
def _named_if_away(home: Path, embedded: bool) -> Iterator[None]:
    """What Prefect's server did not do, as a failed service: it did not start, or ended, or its disk is full."""
    import httpx

    try:
        yield
    except (RuntimeError, httpx.TransportError) as error:
        late = "ephemeral Prefect API server" in str(error)
        if not (late or isinstance(error, httpx.TransportError)):
            raise
        where = str(home) if embedded else os.environ.get("PREFECT_API_URL", "")
        if embedded and shutil.disk_usage(home).free < LEAST_BYTES:
            fix = "make room there and run it again: it goes on where it was"
            raise ServiceFailed("the disk is full, and Prefect's server cannot write", where=where, fix=fix) from error
        cause = f"did not answer within {STARTUP_SECONDS} s" if late else f"does not answer ({type(error).__name__})"
        fix = "start again when the machine is less busy, or name a running server: PREFECT_API_URL"
        raise ServiceFailed(f"Prefect's server {cause}", where=where, fix=fix) from error


def end_orphans(home: Path) -> int:
    """Ends embedded servers of `home` whose flow was killed before it could end them; says how many there were."""
    found = 0
    for process in psutil.process_iter():
        try:
            server = process.status() != psutil.STATUS_ZOMBIE and "prefect.server" in " ".join(process.cmdline())
            if server and process.environ().get("PREFECT_HOME") == str(home) and _is_orphan(process):
                process.terminate()
                found += 1
        except psutil.Error:  # gone meanwhile, or somebody else's
            continue
    return found


def _is_orphan(process: psutil.Process) -> bool:
    """Its parent is gone: what adopted it is no Python."""
    parent = process.parent()
    return parent is None or "python" not in parent.name()


def _mute_console() -> None:
    """Prefect's log goes to its pages alone; the terminal has our progress, and an error is said once, by us."""
    import prefect.main  # noqa: F401  sets its handlers up

    names = [name for name in logging.root.manager.loggerDict if name.startswith("prefect")]
    for logger in (logging.getLogger(), *map(logging.getLogger, names)):
        for handler in logger.handlers:
            if isinstance(handler, logging.StreamHandler):
                handler.setLevel(logging.CRITICAL + 1)  # for good: the embedded server says goodbye at exit
