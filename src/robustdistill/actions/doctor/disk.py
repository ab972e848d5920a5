"""Room for the next run, on the workspace's disk and on that of temporary files; and threads."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from robustdistill.actions.doctor.finding import Case, Finding, check
from robustdistill.actions.sizes import megabytes, size
from robustdistill.machine import cores

LEAST = 500e6  # bytes: a first run of the digits takes about that with its records
FIX = "make room: robustdistill gc says what may go"
THREADS = "OMP_NUM_THREADS"


@check("disk")
def examine(case: Case) -> Iterator[Finding]:
    yield _threads()
    cache, run = (0.0, LEAST)
    if case.workspace is not None:
        root = case.workspace.root
        cache, run = size(root / ".dvc" / "cache"), max(LEAST, 2 * size(case.workspace.artifacts))
        yield _room("disk, workspace", root, cache, run)
    yield _room("disk, temporary files", Path(tempfile.gettempdir()), 0.0, LEAST)


def _room(name: str, place: Path, cache: float, run: float) -> Finding:
    """A run writes its results once into the workspace and once into the cache; the cache may grow by itself again."""
    free = shutil.disk_usage(place).free
    found = f"{megabytes(free)} free on {place}; a run takes about {megabytes(run)}"
    found += f", the cache holds {megabytes(cache)}" if cache else ""
    if not os.access(place, os.W_OK):
        return Finding(name, "FAIL", f"{place} cannot be written", "see who owns it")
    if free < run:
        return Finding(name, "FAIL", found, FIX, service=True)
    return Finding(name, "warn" if free < run + cache else "ok", found, FIX if free < run + cache else "")


def _threads() -> Finding:
    given, there = os.environ.get(THREADS), cores()
    if given is None:
        return Finding("threads", "ok", f"torch takes as many as there are cores here: {there}")
    if not given.isdigit() or int(given) < 1:
        return Finding(
            "threads", "FAIL", f"{THREADS}={given[:20]} is no number", f"export {THREADS}={there}, or unset it"
        )
    if int(given) > there:
        fix = f"unset {THREADS}, or set it to {there}"
        return Finding("threads", "warn", f"{given} threads on {there} cores: they wait for each other", fix)
    return Finding("threads", "ok", f"{given} of {there} cores ({THREADS})")
