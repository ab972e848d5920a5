"""Data versioned as a step of its own, and the workspace committed: what a run was made from can be had again."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Container
from pathlib import Path

from robustdistill.actions import data, data_news
from robustdistill.data import materialise
from robustdistill.data.names import all_kept
from robustdistill.errors import BadInput
from robustdistill.services import dvc_cli, dvc_remote, git_cli
from robustdistill.stages.catalog import STAGES
from robustdistill.workspace import Workspace

INPUTS = ("params.yaml", "policy.yaml", "dvc.yaml", "data.dvc", "teacher.pin.json")
DATA = ("data.dvc", ".gitignore")
TRACKED = (*INPUTS, "dvc.lock", ".gitignore")


def version_data(workspace: Workspace, *, expected: str | None = None, dry_run: bool = False) -> str:
    """Versions data/ if its content is not what data.dvc says; returns what changed as markdown, "" if nothing did.

    The report is also left for the flow run that shows it. Names that DVC cannot keep are changed in data/.

    The digest is computed from the files themselves, because DVC trusts its cache. Raises BadInput if there is no data,
    if it is not valid, or if it is not the data that `expected` (a digest) names.
    """
    known = dvc_cli.digest(workspace.root)
    if known is None and not workspace.data.is_dir():
        raise data.none_yet(workspace)
    bring_data(workspace)
    found = data.tree_digest(workspace.data)
    if expected and found != expected:
        cause = f"data/ has the digest {found}, asked for was {expected}"
        raise BadInput(cause, where=str(workspace.data), fix="dvc checkout data.dvc")
    if found == known:
        return ""
    if not dry_run and not all_kept(workspace.data):  # put there by hand; DVC would refuse or lose some
        materialise("image_folder", workspace.data, path=workspace.data)
        found = data.tree_digest(workspace.data)
    prepared = workspace.out("prepare")
    changes = data.report(prepared if prepared.exists() else None, workspace.data, workspace.params().data).markdown()
    if not dry_run:
        data_news.leave(workspace, found, changes)
        dvc_cli.add_data(workspace.root)
    return changes


def bring_data(workspace: Workspace) -> None:
    """data/ as data.dvc names it, where it is not here, as in a clone. Raises BadInput, ServiceFailed."""
    known = dvc_cli.digest(workspace.root)
    if known is not None and not workspace.data.is_dir():
        dvc_remote.fetch_data(workspace.root)
        _require_unaltered(workspace, known)


def _require_unaltered(workspace: Workspace, known: str) -> None:
    """DVC hands out whatever lies in its cache; what it names by a hash must have that hash."""
    found = data.tree_digest(workspace.data)
    if found != known:
        shutil.rmtree(workspace.data)
        raise BadInput(
            f"DVC's copy of the data was altered: its digest is {found}, data.dvc says {known}",
            where=str(workspace.root / ".dvc" / "cache"),
            fix="remove .dvc/cache, then `dvc pull data.dvc` from a good remote, or `robustdistill data add PATH`",
        )


def bring_results(workspace: Workspace, stages: Container[str] = STAGES) -> list[str]:
    """Results of `stages` that are not here though nothing has changed, as in a clone, from DVC's cache or its remote.

    Returns the stages whose results came. Raises ServiceFailed where the remote cannot be asked.
    """
    gone = [name for name in dvc_cli.restorable(workspace.root) if name in stages]
    came = dvc_remote.fetch_results(workspace.root, [STAGES[name].out for name in gone])
    return [name for name in gone if STAGES[name].out in came]


def require_unaltered_results(workspace: Workspace, stages: Container[str] = STAGES) -> None:
    """Raises BadInput if the result of one of `stages` is not what the stage wrote, as dvc.lock records it.

    DVC trusts its cache: what it restores from there after somebody altered it looks up to date to it.
    """
    for path, (stage, known) in dvc_cli.recorded(workspace.root).items():
        folder = workspace.root / path
        found = data.tree_digest(folder) if stage in stages and folder.is_dir() else None
        if found is not None and found != known:
            raise BadInput(
                f"the result of stage {stage} was altered, or a run of it cut short: its digest is {found}, dvc.lock "
                f"says {known}",
                where=str(folder),
                fix=f"rm -r {' '.join([path, *_copies(workspace, folder, known)])}, then run the flow",
            )


def _copies(workspace: Workspace, folder: Path, known: str) -> list[str]:
    """The copies in DVC's cache that a result was restored from and that are not what their names say."""
    cache = Path(dvc_cli.dvc(workspace.root, "cache", "dir").strip()) / "files" / "md5"
    try:
        listed = json.loads((cache / known[:2] / known[2:]).read_text(encoding="utf-8"))
        copies = [cache / entry["md5"][:2] / entry["md5"][2:] for entry in listed]
    except (OSError, ValueError, KeyError, TypeError):  # the list itself was altered
        copies = [cache / known[:2] / known[2:]]
    return [os.path.relpath(copy, workspace.root) for copy in copies if copy.is_file() and not _holds(copy)]


def _holds(copy: Path) -> bool:
    return data.md5(copy) == (copy.parent.name + copy.name).removesuffix(".dir")


def commit_data(workspace: Workspace, message: str) -> bool:
    """Commits what names the data, so that this version can be had again; the next run pushes. False if committed."""
    _owed(workspace).parent.mkdir(parents=True, exist_ok=True)
    _owed(workspace).touch()
    paths = [name for name in DATA if (workspace.root / name).exists()]
    return git_cli.commit(workspace.root, paths, message)


def _owed(workspace: Workspace) -> Path:
    """There while something may have been committed that is not in the remote yet."""
    return workspace.work / "not-pushed"


def commit(workspace: Workspace, run: str) -> None:
    """Commits what names data, params and results in the workspace's own repository, and pushes to its DVC remote.

    A push that failed, or that a crash cut off, is made up for by the next run.
    """
    paths = [name for name in TRACKED if (workspace.root / name).exists()]
    owed = _owed(workspace)
    before = owed.exists()
    owed.parent.mkdir(parents=True, exist_ok=True)
    owed.touch()
    if git_cli.commit(workspace.root, paths, f"Retrain: {run}") or before:
        dvc_remote.push(workspace.root)
    owed.unlink(missing_ok=True)
