"""As much of a workspace, a session and a replay as the promotion asks of them, and a crash between any two writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest

from robustdistill.actions import intent
from robustdistill.services.mlflow_registry import Registry

WRITES = ("ensure", "create", "tag", "tag_model", "point")


@dataclass
class Workspace:
    """Its own policy, too."""

    work: Path
    name: str = "toy"
    root: str = "/w"
    promote: str = "auto"
    gain: str = "inform"

    @property
    def artifacts(self) -> Path:
        return self.work

    @property
    def journal(self) -> Path:
        return self.work / "journal.jsonl"

    def policy(self) -> Self:
        return self


@dataclass
class Session:
    workspace: Workspace
    store: Any
    run: str = "r1"
    incomparable: str = ""
    awaits: str = ""
    judged: str = ""


class Replayed:
    """A replay in which all answered as judged."""

    def _asdict(self) -> dict[str, Any]:
        return {}


class Crash(BaseException):
    """Nothing may catch this, as nothing catches SIGKILL."""


def crash_before(monkeypatch: pytest.MonkeyPatch, nth: int) -> Callable[[], int]:
    """The nth write to the registry or the disk does not happen any more; returns how many were begun."""
    begun = 0

    def failing(real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            nonlocal begun
            begun += 1
            if begun == nth:
                raise Crash
            return real(*args, **kwargs)

        return call

    for name in WRITES:
        monkeypatch.setattr(Registry, name, failing(getattr(Registry, name)))
    monkeypatch.setattr(intent, "write_atomically", failing(intent.write_atomically))
    monkeypatch.setattr(intent, "forget", failing(intent.forget))
    return lambda: begun
