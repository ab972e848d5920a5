"""A flow as a process that a test watches and ends."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import scenario

from robustdistill.training.checkpoint import INDEX

SECONDS = 240.0


def start(root: Path) -> subprocess.Popen[bytes]:
    """`retrain` on the workspace, first of a process group of its own, as a terminal starts it."""
    command = [sys.executable, str(scenario.ROOT / "flows" / "retrain.py"), "--workspace", str(root)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, env=scenario.environment(), start_new_session=True, **quiet)


def said(root: Path, stage: str, event: str, since: float) -> bool:
    """Whether the stage has written this event to the journal since then."""
    lines = (root / "journal.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines if line.endswith("}")]
    return any(line["stage"] == stage and line["event"] == event and line["t"] > since for line in found)


def has_checkpoint(root: Path, stage: str) -> bool:
    return any((root / ".work" / stage).glob(f"*/{INDEX}"))


def wait_until(what: Callable[[], bool], process: subprocess.Popen[bytes], fault: str) -> None:
    """Fails if the process ends first, or if it takes longer than SECONDS."""
    deadline = time.monotonic() + SECONDS
    while not what():
        assert process.poll() is None, f"{fault}: the flow ended with {process.returncode}"
        assert time.monotonic() < deadline, fault
        time.sleep(0.05)


def descendants(process: subprocess.Popen[bytes], naming: str = "") -> list[psutil.Process]:
    """Its children and theirs; only those with `naming` in their command line."""
    return [child for child in psutil.Process(process.pid).children(recursive=True) if naming in _line(child)]


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def alive(processes: list[psutil.Process], seconds: float) -> list[str]:
    """Command lines of those that live on after so long."""
    _, living = psutil.wait_procs(processes, timeout=seconds)
    return [_line(process) for process in living if process.status() != psutil.STATUS_ZOMBIE]
