"""DVC's cache: results and data that nothing kept needs any more."""

from __future__ import annotations

from pathlib import Path

from robustdistill.actions import data_news
from robustdistill.actions.gc.item import Item, Policy
from robustdistill.actions.sizes import size
from robustdistill.errors import BadInput
from robustdistill.services import dvc_cli, dvc_gc, git_history
from robustdistill.workspace import Workspace


def find(workspace: Workspace, policy: Policy, commits: list[str], *, remote: bool) -> list[Item]:
    """Everything goes but what the workspace, a branch, a tag, an experiment, a young commit, the last `keep_runs` of
    HEAD or one of `commits` needs. Raises ServiceFailed."""
    root = workspace.root
    dvc_cli.require_repository(root)
    _require_known(root, commits)
    _require_seen(workspace)
    kept = [
        *git_history.named(root),
        *git_history.recent(root, since=policy.before, count=policy.keep_runs),
        *git_history.known(root, commits),
    ]
    _require_history(root, kept)
    listed = dvc_gc.unused(root, kept, remote=remote)
    if not listed:
        return []
    home = dvc_gc.cache(root)
    here = [Path(path) for path in listed if home in Path(path).parents]
    there = [path for path in listed if home not in Path(path).parents]

    def remove() -> None:
        dvc_gc.unused(root, kept, remote=remote, remove=True)

    items = [Item("DVC cache", str(home), remove, sum(map(size, here)), len(here))] if here else []
    if there:
        weight = sum(size(Path(path)) for path in there) if all(Path(path).is_file() for path in there) else None
        items.append(Item("DVC remote", there[0].partition("/files/")[0], remove, weight, len(there)))
    return items


def _require_known(root: Path, commits: list[str]) -> None:
    """What a commit needs is only known where it is."""
    unknown = [commit for commit in commits if commit and not git_history.known(root, [commit])]
    if unknown:
        raise BadInput(
            f"{len(unknown)} commits of runs that are kept are not in this repository, such as {unknown[0][:12]}: what "
            "they need of DVC's cache is not known here",
            where=str(root),
            fix="git fetch them from the clone in which those runs were made, or run gc there",
        )


def _require_seen(workspace: Workspace) -> None:
    """Data that were added since the last run are in no commit yet."""
    if data_news.waiting(workspace):
        fix = "run the flow once, which commits them; then gc"
        raise BadInput("data were added that no run has seen", where=str(workspace.data), fix=fix)


def _require_history(root: Path, kept: list[str]) -> None:
    """A repository whose history was lost does not know what its cache is for."""
    if not kept and (root / "dvc.lock").exists():
        fix = "commit the workspace first: git add --all; git commit"
        raise BadInput("git knows no commit here, so nothing says what DVC's cache is for", where=str(root), fix=fix)
