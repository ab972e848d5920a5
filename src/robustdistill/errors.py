"""What can go wrong, by who can mend it. Each error says the cause, the place and the fix, and has an exit code."""

from __future__ import annotations

import difflib
import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FULL = (errno.ENOSPC, errno.EDQUOT)


class RobustDistillError(Exception):
    """Base of every error that a user is shown as a sentence instead of a traceback."""

    exit_code, kind = 70, "fault"

    def __init__(self, cause: str, *, where: str = "", fix: str = "") -> None:
        """cause: one sentence. where: file, key or address. fix: what the user can do."""
        super().__init__(cause)
        self.cause, self.where, self.fix = cause, where, fix

    def __str__(self) -> str:
        parts = [self.cause]
        if self.where:
            parts.append(f"  where: {self.where}")
        if self.fix:
            parts.append(f"  fix:   {self.fix}")
        return "\n".join(parts)

    def to_json(self) -> dict[str, Any]:
        """For programs: kind, cause, where, fix, exit_code."""
        told = {"kind": self.kind, "cause": self.cause, "where": self.where, "fix": self.fix}
        return told | {"exit_code": self.exit_code}


class GateRefused(RobustDistillError):
    """The gate said no: a result, not a fault."""

    exit_code, kind = 1, "refused"


class BadInput(RobustDistillError):
    """Something the user gave cannot be used: a config, data, a file, a flag."""

    exit_code, kind = 2, "bad_input"


class Superseded(BadInput):
    """The data that were asked for have been followed by others."""

    kind = "superseded"


class Unhealthy(RobustDistillError):
    """The evaluation cannot be trusted, so there is nothing to decide on."""

    exit_code, kind = 3, "unhealthy"


class ServiceFailed(RobustDistillError):
    """MLflow, Prefect, DVC, S3 or the disk did not do its part."""

    exit_code, kind = 4, "service_failed"


class OutOfTime(RobustDistillError):
    """The run's time budget is spent; what was done is kept. 75: sysexits.h asks for another attempt by it."""

    exit_code, kind = 75, "out_of_time"


class ServiceRefused(ServiceFailed):
    """A service that answers, and says no (credentials, a bucket that is not there): trying again is of no use."""


@contextmanager
def placed(path: Path) -> Iterator[None]:
    """Names `path` in an OSError that names no file: writing to a full disk raises one."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def of_system(error: OSError, doing: str = "", *, where: str = "") -> ServiceFailed:
    """What the disk or the operating system refused, as a sentence. doing: "copying the data"; where: if not the file
    that the error names."""
    where = where or os.fsdecode(error.filename or "")
    if error.errno in FULL:
        fix = "make room there and run it again: it goes on where it was"
        return ServiceFailed(f"the disk is full{doing and f' ({doing})'}", where=where, fix=fix)
    return ServiceFailed(f"{doing and f'{doing}: '}{error.strerror or error}", where=where)


def several(first: Sequence[BadInput], count: int, *, where: str) -> BadInput:
    """One error for `count` faults, of which the `first` are told: a line each, with its place."""
    lines = [f"  - {'' if fault.where in ('', where) else f'{fault.where}: '}{fault.cause}" for fault in first]
    if count > len(first):
        lines.append(f"  and {count - len(first)} more")
    fixes = dict.fromkeys(fault.fix for fault in first if fault.fix)
    return BadInput("\n".join([f"there are {count} faults", *lines]), where=where, fix="; ".join(fixes))


def unknown(kind: str, name: str, choices: Iterable[str], *, where: str = "") -> BadInput:
    """The error for a name that is not on the list: nearest name first, then all of them."""
    names = sorted(choices)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return BadInput(f"unknown {kind} {name!r}", where=where, fix=f"{hint}choices: {', '.join(names)}")
