"""What can go wrong, by who can mend it. Each error says the cause, the place and the fix, and has an exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RobustDistillError(Exception):
    """Base of every error that a user is shown as a sentence instead of a traceback."""

    exit_code = 70

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


class GateRefused(RobustDistillError):
    """The gate said no: a result, not a fault."""

    exit_code = 1


class BadInput(RobustDistillError):
    """Something the user gave cannot be used: a config, data, a file, a flag."""

    exit_code = 2


class Unhealthy(RobustDistillError):
    """The evaluation cannot be trusted, so there is nothing to decide on."""

    exit_code = 3


class ServiceFailed(RobustDistillError):
    """MLflow, Prefect, DVC, S3 or the disk did not do its part."""

    exit_code = 4


def unknown(kind: str, name: str, choices: Iterable[str], *, where: str = "") -> BadInput:
    """The error for a name that is not on the list: nearest name first, then all of them."""
    names = sorted(choices)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return BadInput(f"unknown {kind} {name!r}", where=where, fix=f"{hint}choices: {', '.join(names)}")
