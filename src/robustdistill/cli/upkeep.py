"""Commands for whoever looks after the machine: is the setup sound, and what may go."""

from __future__ import annotations

import click

from robustdistill.cli.layout import columns, labelled
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


@root.command()
@click.option("--keep-runs", type=click.IntRange(min=0), default=20, show_default=True, help="the newest always stay")
@click.option("--older-than", default="30d", show_default=True, help="only what is older: 12h, 30d, 8w")
@click.option("--apply", "--yes", "apply", is_flag=True, help="do it; else it is only shown")
@click.option("--purge", is_flag=True, help="also empty MLflow's bin of what gc put there, for good")
@click.option(
    "--remote", is_flag=True, help="also in the DVC remote: not where another workspace or branch uses it, too"
)
@pass_settings
def gc(settings: Settings, keep_runs: int, older_than: str, apply: bool, purge: bool, remote: bool) -> None:
    """Make room: remove old runs, cache, artifacts.

    Shows what would go and how large it is; --apply does it. Something goes if it is older than --older-than AND not of
    the newest --keep-runs flow runs AND needed by nothing.

    \b
    Never goes:
      versions of NAME (the champions, past and present), and the candidates, runs and models they came from
      candidates with an alias, or named by a promotion's record or a promotion under way; the present student
      runs that are RUNNING, or not told to MLflow to the end; runs of others
      data and results that the workspace, HEAD, a branch, a tag, an experiment or the commit of a kept run needs
      teachers that a pin in any commit names

    \b
      robustdistill --workspace demo gc
      robustdistill --workspace demo gc --keep-runs 5 --older-than 7d --apply
      robustdistill --workspace demo gc --apply --purge      deleted runs cannot be brought back from MLflow's page

    Behind an MLflow server only its administrator can free the room of deleted runs; the command is told. Stopped
    half-way, the same command goes on. No run may hold the workspace meanwhile.
    """
    from robustdistill.actions import gc as actions
    from robustdistill.actions.sizes import megabytes

    settings.say("looking at records, cache and folders (some seconds) ...")
    request = actions.Request(keep_runs, older_than, apply, remote, purge)
    found = actions.run(settings.workspace(), request, settings.say)
    rows = [(row["kind"], str(row["count"]), _weight(row["bytes"])) for row in found["kinds"]]
    told = [columns(("what", "how many", "room"), rows)] if rows else ["nothing to remove"]
    if rows:
        told += [f"{'removed' if apply else 'would go'}: {megabytes(found['bytes'])} that are known", *found["notes"]]
    if rows and not apply:
        told.append("next: the same with --apply")
    told += [f"needed meanwhile, stayed: {each}" for each in found["needed_meanwhile"]]
    settings.answer(found, "\n".join(told))


def _weight(size: float | None) -> str:
    from robustdistill.actions.sizes import megabytes

    return "the server knows" if size is None else megabytes(size)
