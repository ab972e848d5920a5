"""A call that may not hold a run up: other people's servers are told things, and are not waited for."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable


def within(seconds: float, call: Callable[[], object]) -> BaseException | None:
    """Runs `call` in a thread of its own, under the caller's settings; returns what went wrong, None if nothing did.

    A call that has not come back after `seconds` is left alone and is a TimeoutError. A thread, because a flow may have
    an event loop already, and because a look-up of a name outlasts the time limits of clients.
    """
    failure: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(run,), daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        return TimeoutError(f"no answer within {seconds:g} s")
    return failure[0] if failure else None
