"""The journal's progress as Prefect progress artifacts, one a stage, updated at a modest rate."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from robustdistill.journal import fraction

EVERY_SECONDS = 3.0


class ProgressArtifacts:
    """A listener of the journal. Artifacts are made inside the stage's task, so that Prefect links them to it."""

    def __init__(self) -> None:
        self._artifacts: dict[str, UUID] = {}
        self._told: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        """The artifact of one stage, from 0 to 100 %."""
        key = stage.replace("@", "-")
        artifact: Any = create_progress_artifact(0.0, key=f"progress-{key}", description=f"progress of {stage}")
        with self._lock:
            self._artifacts[stage] = artifact
        try:
            yield
            update_progress_artifact(artifact, 100.0)
        finally:
            with self._lock:
                self._artifacts.pop(stage, None)

    def __call__(self, record: Mapping[str, Any]) -> None:
        done = fraction(record)
        with self._lock:
            artifact = self._artifacts.get(record["stage"])
        now = time.monotonic()
        if artifact is None or done is None or now - self._told.get(record["stage"], -EVERY_SECONDS) < EVERY_SECONDS:
            return
        self._told[record["stage"]] = now
        update_progress_artifact(artifact, 100.0 * done)
