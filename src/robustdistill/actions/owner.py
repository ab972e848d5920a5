"""Who a run or an intent belongs to: a process, named so that another of the same number is not taken for it."""

from __future__ import annotations

import os
import socket

TAG = "robustdistill.owner"


def _started(pid: int) -> str:
    """When a process began, in whole seconds; empty if there is none of this number."""
    import psutil

    try:
        process = psutil.Process(pid)
        return "" if process.status() == psutil.STATUS_ZOMBIE else str(int(process.create_time()))
    except psutil.NoSuchProcess:
        return ""
    except psutil.AccessDenied:
        return "?"


def here() -> str:
    """This process, as host:pid:start."""
    return f"{socket.gethostname()}:{os.getpid()}:{_started(os.getpid())}"


def alive(owner: str) -> bool:
    """False only if the process is known to be gone. Of another machine's processes nothing is known: True."""
    host, pid, started = ["", "", "", *owner.rsplit(":", 2)][-3:]
    if host != socket.gethostname() or not pid.isdigit():
        return True
    return _started(int(pid)) in (started, "?")
