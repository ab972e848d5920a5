"""A flow as a command of its own: options from its parameters, progress and result in the terminal, exit codes."""

from __future__ import annotations

import inspect
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import click

from robustdistill import console
from robustdistill.actions import follow
from robustdistill.actions.summary import Summary
from robustdistill.services import prefect_home
from robustdistill.workspace import Workspace

GRACE_SECONDS = 10.0  # after Ctrl-C, for what is under way to be recorded


def _option(parameter: inspect.Parameter, help_text: str, flag: str = "") -> click.Option:
    names = [flag or f"--{parameter.name.replace('_', '-')}", parameter.name]
    if parameter.default is False:
        return click.Option(names, is_flag=True, help=help_text)
    kind = next((kind for kind in (int, float) if kind.__name__ in str(parameter.annotation)), str)
    if parameter.default is inspect.Parameter.empty:
        return click.Option(names, type=kind, required=True, help=help_text)
    shown = parameter.default is not None
    return click.Option(names, type=kind, default=parameter.default, show_default=shown, help=help_text)


def _run(flow: Any, given: Mapping[str, Any], *, as_json: bool, debug: bool) -> int:
    workspace = Workspace.find(Path(given["workspace"]))
    # A workspace in use or a mistyped key is said before seconds are spent on a server.
    with workspace.lock(patience=60.0 * (given.get("patience") or 0)):
        workspace.params(), workspace.policy()
    out = console.console(quiet=as_json)
    out.print(
        f"[bold]{flow.name}[/] {workspace.root} [dim](about 15 s to start Prefect and see what changed)[/]",
        soft_wrap=True,
    )
    progress = console.progress(out)
    with prefect_home.configured(workspace.work / "prefect", quiet=not debug), follow.listening(progress):
        try:
            result: dict[str, Any] = flow(**{**given, "workspace": str(workspace.root)})
        finally:
            progress.close()
    if as_json:
        click.echo(json.dumps(result, indent=2, sort_keys=True))
    summary = Summary.from_json(result)
    console.show(summary, out)
    return summary.exit_code


def command(flow: Any, helps: Mapping[str, str], flags: Mapping[str, str] | None = None) -> click.Command:
    """The click command of a Prefect flow. helps: parameter -> what it means. flags: those called otherwise."""
    parameters = inspect.signature(flow.fn).parameters.values()
    options: list[click.Parameter] = [
        _option(parameter, helps.get(parameter.name, ""), (flags or {}).get(parameter.name, ""))
        for parameter in parameters
    ]
    options.append(click.Option(["--json", "as_json"], is_flag=True, help="the result as JSON on stdout"))
    options.append(click.Option(["--debug"], is_flag=True, help="show tracebacks"))

    def callback(as_json: bool, debug: bool, **given: Any) -> int:
        return _run(flow, given, as_json=as_json, debug=debug)

    return click.Command(flow.name, params=options, callback=callback, help=inspect.getdoc(flow.fn))


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """Ctrl-C reaches the embedded server too, and it goes first: Prefect would call after it for minutes."""
    logging.disable(logging.CRITICAL)
    timer = threading.Timer(GRACE_SECONDS, _give_up)
    timer.daemon = True
    timer.start()
    raise KeyboardInterrupt


def _give_up() -> None:
    from robustdistill.cli.errors import Interrupted, asked, say_json

    given_up = Interrupted("interrupted; start it again: it goes on where it was")
    click.echo(given_up.cause, err=True)
    if asked(sys.argv[1:], "--json"):
        say_json(given_up)
        sys.stdout.flush()
    os._exit(given_up.exit_code)


def _terminate(_number: int, _frame: FrameType | None) -> None:
    """Ends through every `finally`, so that the embedded server ends too."""
    sys.exit(143)


def main(flow: Any, helps: Mapping[str, str], flags: Mapping[str, str] | None = None) -> None:
    """Runs the flow named by the command line and exits with the project's exit codes."""
    from robustdistill.cli.errors import asked, guarded

    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _terminate)  # what Prefect restores and raises again when it has cleaned up
    run: Callable[[], Any] = lambda: command(flow, helps, flags).main(standalone_mode=False)  # noqa: E731
    given = sys.argv[1:]
    sys.exit(guarded(run, debug=asked(given, "--debug"), as_json=asked(given, "--json")))
