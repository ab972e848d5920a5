"""The command line. Each command is a few lines around one action, imported only when it is called.

Answers go to stdout, everything else to stderr; every error is a sentence with an exit code and, with --json, an
object on stdout, too (`guarded`).
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import Any

from robustdistill.cli.errors import Terminated, asked, guarded

__all__ = ["guarded", "main"]


def main(arguments: list[str] | None = None) -> None:
    """Runs a command and exits: 0 done, 1 refused by the gate, 2 bad input, 3 untrustworthy evaluation, 4 a service
    failed, 70 a fault of ours, 130 interrupted, 143 stopped."""
    from robustdistill.cli.root import root

    if arguments is None:  # a process of our own: ended from outside, it cleans up and says so
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(Terminated.exit_code))
    given = sys.argv[1:] if arguments is None else arguments
    run: Callable[[], Any] = lambda: root.main(given, prog_name="robustdistill", standalone_mode=False)  # noqa: E731
    sys.exit(guarded(run, debug=asked(given, "--debug"), as_json=asked(given, "--json")))
