"""The time budget of a run (`--max-minutes`): one moment, known to all its processes, after which the run stops.

It is a reading of time.monotonic, which the processes of a machine share and no change of the clock moves. Training and
judging ask `require` wherever all that was done so far is kept. What does not ask is cut off LATEST_SECONDS later.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from robustdistill.errors import BadInput, OutOfTime

VARIABLE = "ROBUSTDISTILL_UNTIL"  # when the budget is spent; not set: there is none
LATEST_SECONDS = 60.0


@contextmanager
def limited(minutes: float | None) -> Iterator[None]:
    """From now on for so many minutes, for this process and those it starts inside. None: no budget.

    Raises BadInput for a number of minutes that is not positive and finite.
    """
    if minutes is None:
        yield
        return
    require_positive(minutes)
    os.environ[VARIABLE] = repr(time.monotonic() + 60.0 * minutes)
    try:
        yield
    finally:
        os.environ.pop(VARIABLE, None)


def require_positive(minutes: float) -> None:
    if not (math.isfinite(minutes) and minutes > 0):
        raise BadInput(f"{minutes} minutes are no time budget", where="--max-minutes", fix="--max-minutes 90")


def left() -> float:
    """Seconds until the budget is spent, negative afterwards; infinite without one."""
    until = os.environ.get(VARIABLE)
    return float(until) - time.monotonic() if until else math.inf


def patience() -> float | None:
    """Seconds after which a process that does not stop by itself is cut off, for `subprocess`; None: never."""
    seconds = left() + LATEST_SECONDS
    return None if math.isinf(seconds) else max(0.0, seconds)


def spent() -> bool:
    return left() <= 0


def overdue() -> bool:
    """Whether a process that did not stop by itself is to be cut off."""
    return left() <= -LATEST_SECONDS


def require(stopped: str) -> None:
    """Raises OutOfTime that says what was `stopped`, if the budget is spent."""
    if spent():
        raise out_of_time(stopped)


def out_of_time(stopped: str) -> OutOfTime:
    return OutOfTime(stopped, fix="start it again: it goes on where it was")
