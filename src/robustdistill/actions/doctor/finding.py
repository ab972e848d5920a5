"""One line of the doctor: what was looked at, how it stands, what was measured, and what to do."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from robustdistill.errors import RobustDistillError, ServiceFailed
from robustdistill.services.dvc_remote import redact
from robustdistill.services.mlflow_address import SECRET_VARIABLES
from robustdistill.workspace import Workspace

Level = Literal["ok", "warn", "FAIL"]
CLOCK_SECONDS = 60.0


SECRETS = (*SECRET_VARIABLES, "PREFECT_API_AUTH_STRING", "PREFECT_API_KEY")


def _clean(text: str) -> str:
    for secret in filter(None, map(os.environ.get, SECRETS)):
        text = text.replace(secret, "***")
    return redact(text)


@dataclass(frozen=True)
class Finding:
    """service: a failure is a service's, not the setup's."""

    check: str
    level: Level
    found: str
    fix: str = ""
    service: bool = False

    def clean(self) -> Finding:
        """Without what the environment holds of secrets, wherever a library may have said it."""
        return replace(self, found=_clean(self.found), fix=_clean(self.fix))

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
                yield from (found.clean() for found in function(case))
            except RobustDistillError as error:
                place = f" ({error.where})" if error.where else ""
                service = isinstance(error, ServiceFailed)
                yield Finding(name, "FAIL", error.cause + place, error.fix, service).clean()
            except Exception as error:  # the rest has to be examined all the same
                yield Finding(name, "FAIL", f"unexpected {type(error).__name__}: {error}", "report it").clean()

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
