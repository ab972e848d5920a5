"""Where every error ends: a sentence on stderr and an exit code; with --json also one object on stdout; a traceback
only when asked for."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import click

from robustdistill.errors import FULL, BadInput, RobustDistillError, of_system


class Interrupted(RobustDistillError):
    """Ctrl-C."""

    exit_code, kind = 130, "interrupted"


class Terminated(RobustDistillError):
    """SIGTERM."""

    exit_code, kind = 143, "stopped"


def asked(arguments: Sequence[str], flag: str) -> bool:
    """Whether a flag is among arguments that have not been parsed: those before `--`."""
    ahead = list(arguments)
    return flag in (ahead[: ahead.index("--")] if "--" in ahead else ahead)


def guarded(run: Callable[[], Any], *, debug: bool = False, as_json: bool = False) -> int:
    """Calls `run` and returns the exit code: its own if it returned a whole number, else 0 or that of its error."""
    try:
        code = run()
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except BaseException as error:
        return _ended(error, debug=debug, as_json=as_json)


def _ended(error: BaseException, *, debug: bool, as_json: bool) -> int:
    if debug and not isinstance(error, click.exceptions.Exit | SystemExit):
        traceback.print_exception(error)
    match error:
        case click.exceptions.Exit():
            return error.exit_code
        case SystemExit() if error.code != Terminated.exit_code:
            return error.code if isinstance(error.code, int) else int(error.code is not None)
        case BrokenPipeError():  # the reader, such as `head`, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
    known = as_known(error)
    if isinstance(error, click.ClickException):
        error.show(sys.stderr)  # with the usage
    else:
        click.echo(str(known) if isinstance(known, Interrupted | Terminated) else f"error: {known}", err=True)
    if as_json:
        say_json(known)
    return known.exit_code


def as_known(error: BaseException) -> RobustDistillError:
    """Any error as one of ours: a sentence with a kind and an exit code."""
    match error:
        case RobustDistillError():
            return error
        case click.exceptions.Abort() | KeyboardInterrupt():
            return Interrupted("interrupted")
        case click.ClickException():
            return _usage(error)
        case OSError() if error.errno in FULL or error.filename is not None:
            return of_system(error)
        case Exception():
            return RobustDistillError(f"unexpected {type(error).__name__}: {error}", fix="run it again with --debug")
    return Terminated("stopped")


def _usage(error: click.ClickException) -> BadInput:
    context = error.ctx if isinstance(error, click.UsageError) else None
    command = context.command_path if context else ""
    lacking = isinstance(error, click.exceptions.NoArgsIsHelpError)  # its message is the whole help
    cause = "a command is missing" if lacking else error.format_message()
    return BadInput(cause, where=command, fix=f"{command} --help".strip())


def say_json(error: RobustDistillError) -> None:
    """The error as one JSON object on stdout, for the program that asked."""
    with suppress(OSError):
        click.echo(json.dumps({"error": error.to_json()}, indent=2, sort_keys=True))
