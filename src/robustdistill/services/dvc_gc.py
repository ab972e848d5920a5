"""DVC's cache, and its remote if asked: what no commit that is kept needs."""

from __future__ import annotations

from pathlib import Path

from robustdistill.services import dvc_cli, git_history

SAYS = "Removing "


def unused(root: Path, commits: list[str], *, remote: bool = False, remove: bool = False) -> list[str]:
    """The objects that neither the workspace, nor an experiment, nor one of these commits needs; nothing is removed
    unless `remove`, and then the answer is empty.

    DVC decides, since it knows all kinds of outputs. Of a commit whose list of files is not in the cache it fetches
    that list from the remote. remote: removes there, too; what only another clone knows is lost then. Raises
    ServiceFailed.
    """
    last, count = git_history.line(root, commits)
    kept = ["--rev", last, "--num", str(count)] if count else []
    how = [*(["--cloud"] if remote else []), *([] if remove else ["--dry"])]
    said = dvc_cli.dvc(root, "gc", "--workspace", *kept, "--all-experiments", "--force", *how)
    return [row.removeprefix(SAYS) for row in said.splitlines() if row.startswith(SAYS)]


def cache(root: Path) -> Path:
    """Where it is; several workspaces may share one."""
    return Path(dvc_cli.dvc(root, "cache", "dir").strip())
