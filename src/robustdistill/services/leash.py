"""A leash between a flow and the stages it starts: whoever is let go of does not live on.

A SIGKILLed flow cannot clean up, so each stage process looks after itself: a thread watches the processes it descends
from and ends the stage soon after one of them is gone. Without it a stage would train on as an orphan, unseen, beside
the next run.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import psutil

VARIABLE = "ROBUSTDISTILL_LEASH"  # "pid:start time" of the flow that a stage belongs to
EVERY_SECONDS = 0.5
EXIT_CODE = 143  # as if by SIGTERM


def own() -> dict[str, str]:
    """The variable that ties child processes to this one."""
    return {VARIABLE: f"{os.getpid()}:{psutil.Process().create_time():.2f}"}


def holders() -> list[psutil.Process]:
    """Who this process must not outlive: ancestors in its process group (the shell, dvc), and the flow, if any."""
    group = os.getpgrp()
    found = [parent for parent in psutil.Process().parents() if _group(parent) == group]
    pid, _, started = os.environ.get(VARIABLE, "").partition(":")
    if pid.isdigit():
        try:
            flow = psutil.Process(int(pid))
        except psutil.NoSuchProcess:
            os._exit(EXIT_CODE)  # it was gone before we began
        if f"{flow.create_time():.2f}" != started:
            os._exit(EXIT_CODE)  # the number belongs to somebody else now
        found.append(flow)
    return found


def _group(process: psutil.Process) -> int | None:
    try:
        return os.getpgid(process.pid)
    except ProcessLookupError:
        return None


def _gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def _end() -> None:
    os._exit(EXIT_CODE)


def watch(*, every: float = EVERY_SECONDS, end: Callable[[], None] = _end) -> threading.Thread:
    """Ends this process soon after one of its holders is gone. Returns the thread that watches."""
    watched = holders()

    def run() -> None:
        while not any(_gone(holder) for holder in watched):
            time.sleep(every)
        end()

    thread = threading.Thread(target=run, name="leash", daemon=True)
    thread.start()
    return thread
