"""One line of the doctor: what was looked at, how it stands, what was measured, and what to do."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from robustdistill.errors import RobustDistillError, ServiceFailed
from robustdistill.services.dvc_remote import redact
from robustdistill.workspace import Workspace

Level = Literal["ok", "warn", "FAIL"]
CLOCK_SECONDS = 60.0


@dataclass(frozen=True)
class Finding:
    """service: a failure is a service's, not the setup's."""

    check: str
    level: Level
    found: str
    fix: str = ""
    service: bool = False

    def to_json(self) -> dict[str, str | bool]:
        return asdict(self)


@dataclass(frozen=True)
class Case:
    """What is examined. workspace: None outside of one. write: services may be tried by writing and removing."""

    workspace: Workspace | None
    write: bool = False

    @property
    def work(self) -> Path:
        return self.workspace.work if self.workspace else Path.cwd() / ".work"


Check = Callable[[Case], Iterator[Finding]]


def check(name: str) -> Callable[[Check], Check]:
    """What goes wrong inside a check is a finding of it: nothing ends the doctor."""

    def around(function: Check) -> Check:
        @functools.wraps(function)
        def examine(case: Case) -> Iterator[Finding]:
            try:
                yield from function(case)
            except RobustDistillError as error:
                place = f" ({error.where})" if error.where else ""
                service = isinstance(error, ServiceFailed)
                yield Finding(name, "FAIL", redact(error.cause) + place, redact(error.fix), service)
            except Exception as error:  # the rest has to be examined all the same
                yield Finding(name, "FAIL", redact(f"unexpected {type(error).__name__}: {error}"), "report it")

        return examine

    return around


def clock(name: str, skew: float | None) -> Iterator[Finding]:
    """skew: seconds that this machine is ahead of the server."""
    if skew is None:
        return
    if abs(skew) > CLOCK_SECONDS:
        way = "ahead of" if skew > 0 else "behind"
        fix = "set the clock (NTP): signatures of S3 expire, and records are out of order"
        yield Finding(f"clock, {name}", "warn", f"{abs(skew):.0f} s {way} the server's", fix)
    else:
        yield Finding(f"clock, {name}", "ok", f"within {CLOCK_SECONDS:.0f} s of the server's")


def megabytes(size: float) -> str:
    return f"{size / 1e6:,.0f} MB"
