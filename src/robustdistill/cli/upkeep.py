"""Commands for whoever looks after the machine: is the setup sound, and what may go."""

from __future__ import annotations

import click

from robustdistill.cli.layout import labelled
from robustdistill.cli.root import Settings, pass_settings, root


@root.command()
@click.option("--write", is_flag=True, help="also write and remove a small object in S3 and in MLflow's artifacts")
@pass_settings
def doctor(settings: Settings, write: bool) -> int:
    """Check a setup, one line a check, with the fix.

    Versions, workspace, MLflow, Prefect, the DVC remote and your rights there, clocks, disk, telemetry, who may read
    what. A service gets 20 seconds at most; only those that you configured are asked, and nothing is changed. Outside
    of a workspace it looks at what is not the workspace's.

    \b
      robustdistill --workspace demo doctor
      robustdistill --workspace demo doctor --write      puts, gets and deletes, if deleting is allowed
      robustdistill doctor --json

    Levels: ok; warn, a run gets through, but look at it; FAIL, a run does not, or not safely.

    Exit codes: 0 nothing fails, 2 the setup is wrong, 4 only a service failed.
    """
    from robustdistill.actions import doctor as actions

    workspace = settings.workspace_if_any()
    found = actions.examine(workspace, write=write)
    place, code = actions.place(workspace), actions.exit_code(found)
    rows = [
        (f"{each.level:<4}  {each.check}", each.found + (f"  fix: {each.fix}" if each.fix else "")) for each in found
    ]
    data = {"where": place, "exit_code": code, "findings": [each.to_json() for each in found]}
    settings.answer(data, f"{place}\n{labelled(rows)}")
    return code
