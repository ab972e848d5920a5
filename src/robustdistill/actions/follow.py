"""Follows the journal while stages run and tells listeners: the terminal, Prefect's progress artifacts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from robustdistill import journal

Listener = Callable[[Mapping[str, Any]], None]

_listening: list[Listener] = []


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """While inside, every Follower of this process also tells `listener`: the terminal of whoever started a flow."""
    _listening.append(listener)
    try:
        yield
    finally:
        _listening.remove(listener)


class Follower:
    """Reads new journal lines in a thread of its own and hands each to every listener, in order.

    A listener that raises is dropped with its error kept in `failures`: showing progress never stops a run.
    """

    def __init__(self, path: Path, listeners: Sequence[Listener], *, every: float = 0.5) -> None:
        self.failures: list[Exception] = []
        self._path, self._listeners, self._every = path, [*listeners, *_listening], every
        self._offset = path.stat().st_size if path.exists() else 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="journal-follower", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._read()

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            self._read()

    def _read(self) -> None:
        for offset, record in journal.read(self._path, self._offset):
            self._offset = offset
            for listener in list(self._listeners):
                try:
                    listener(record)
                except Exception as error:
                    self.failures.append(error)
                    self._listeners.remove(listener)
