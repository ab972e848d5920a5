"""Where every error ends: a sentence on stderr and an exit code, a traceback only when asked for."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

import click

from robustdistill.errors import RobustDistillError, ServiceFailed

INTERRUPTED, TERMINATED, FAULT = 130, 143, 70


def guarded(run: Callable[[], Any], *, debug: bool = False) -> int:
    """Calls `run` and returns the exit code: its own if it returned a whole number, else 0 or that of its error."""
    try:
        code = run()
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except BaseException as error:
        return _told(error, debug=debug)


def _told(error: BaseException, *, debug: bool) -> int:
    if debug and not isinstance(error, click.exceptions.Exit | SystemExit):
        traceback.print_exception(error)
    match error:
        case click.exceptions.Exit():
            return error.exit_code
        case SystemExit():
            return error.code if isinstance(error.code, int) else int(error.code is not None)
        case click.exceptions.Abort() | KeyboardInterrupt():
            return _said("interrupted", INTERRUPTED)
        case click.ClickException():
            error.show(sys.stderr)
            return error.exit_code
        case RobustDistillError():
            return _said(f"error: {error}", error.exit_code)
        case BrokenPipeError():  # the reader, such as `head`, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        case OSError() if error.errno in (errno.ENOSPC, errno.EDQUOT):
            full = ServiceFailed("the disk is full", where=str(error.filename or ""), fix="make room and run it again")
            return _said(f"error: {full}", full.exit_code)
        case OSError() if error.filename is not None:
            said = ServiceFailed(error.strerror or str(error), where=str(error.filename))
            return _said(f"error: {said}", said.exit_code)
    if not isinstance(error, Exception):
        return _said("stopped", TERMINATED)
    fault = RobustDistillError(f"unexpected {type(error).__name__}: {error}", fix="run it again with --debug")
    return _said(f"error: {fault}", FAULT)


def _said(text: str, code: int) -> int:
    click.echo(text, err=True)
    return code
