"""The root command and what all commands share."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from robustdistill import __version__

if TYPE_CHECKING:
    from robustdistill.workspace import Workspace


@dataclass
class Settings:
    """What was said before or after the command's name."""

    home: Path | None = None
    as_json: bool = False
    debug: bool = False

    def workspace(self) -> Workspace:
        from robustdistill.workspace import Workspace

        return Workspace.find(self.home)

    def workspace_if_any(self) -> Workspace | None:
        """None where none was named and the current folder is none."""
        from robustdistill.errors import BadInput

        try:
            return self.workspace()
        except BadInput:
            if self.home is not None:
                raise
            return None

    def answer(self, data: Any, text: str) -> None:
        """To stdout: the data as JSON if asked for, else the text."""
        click.echo(json.dumps(data, indent=2, sort_keys=True) if self.as_json else text)

    def say(self, text: str) -> None:
        """To stderr, for people."""
        click.echo(text, err=True)


pass_settings = click.make_pass_decorator(Settings, ensure=True)


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value:
        setattr(context.ensure_object(Settings), str(parameter.name), value)


def _shared() -> list[click.Parameter]:
    folder = click.Path(path_type=Path, file_okay=False)
    return [
        click.Option(["--workspace", "home"], type=folder, metavar="DIR", expose_value=False, callback=_keep,
                     help="the workspace; default: $ROBUSTDISTILL_WORKSPACE, else the current folder"),
        click.Option(["--json", "as_json"], is_flag=True, expose_value=False, callback=_keep,
                     help="answer in JSON on stdout"),
        click.Option(["--debug"], is_flag=True, expose_value=False, callback=_keep, help="show tracebacks"),
    ]  # fmt: skip


class Command(click.Command):
    """A command that takes the shared options behind its name, too; --workspace only if it acts on one."""

    def __init__(self, *arguments: Any, acts_on_workspace: bool = True, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.params += [option for option in _shared() if acts_on_workspace or option.name != "home"]


class Group(click.Group):
    """Its commands share options; listed in the order in which a newcomer meets them."""

    command_class = Command
    group_class = type

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="robustdistill")
@click.pass_context
def root(context: click.Context) -> None:
    """Robust small models, distilled from hardened teachers, promoted only on evidence.

    \b
    A first round:
      robustdistill init demo --recipe digits                 a workspace: params, policy, data
      python flows/retrain.py --workspace demo                train, judge, decide, promote
      robustdistill --workspace demo status                   where it stands
      robustdistill --workspace demo predict IMAGE.png        ask the champion

    Exit codes: 0 done, 1 refused by the gate, 2 bad input, 3 the evaluation cannot be trusted, 4 a service failed,
    70 a fault of ours, 75 out of time (--max-minutes), 130 interrupted (Ctrl-C), 143 stopped (SIGTERM).

    With --json an answer is JSON on stdout. So is an error, which is also a sentence on stderr:
    {"error": {"kind", "cause", "where", "fix", "exit_code"}}, kind: refused, bad_input, superseded, unhealthy,
    service_failed, out_of_time, fault, interrupted or stopped.
    """
    import os

    settings = context.ensure_object(Settings)
    from_environment = os.environ.get("ROBUSTDISTILL_WORKSPACE")
    if settings.home is None and from_environment:
        settings.home = Path(from_environment)


root.params += _shared()

from robustdistill.cli import local, models, reference, upkeep  # noqa: E402  they add their commands to `root`

__all__ = ["local", "models", "reference", "root", "upkeep"]
