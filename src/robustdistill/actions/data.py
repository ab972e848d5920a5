"""New versions of the raw data: validated first, put in place in one step, and what changed said in words.

DVC does not notice when the content of its cache is altered (it trusts its own bookkeeping), so `tree_digest`
recomputes from the files what `data.dvc` ought to state.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustdistill.actions import data_news, edit_params
from robustdistill.config import Data
from robustdistill.data import materialise, prepare
from robustdistill.data.drift import Changes, compare
from robustdistill.data.prepared import MANIFEST, Prepared
from robustdistill.errors import BadInput
from robustdistill.inputs import shown
from robustdistill.services import dvc_cli
from robustdistill.workspace import Workspace, workspace_option, write_atomically

_CHUNK = 2**20


@dataclass(frozen=True)
class Report:
    """What `add` did. before, after: digests of data/ as versioned (None if never) and as it is now."""

    before: str | None
    after: str
    changes: Changes

    @property
    def changed(self) -> bool:
        return self.before != self.after

    def to_json(self) -> dict[str, Any]:
        return {
            "before": self.before,
            "after": self.after,
            "changed": self.changed,
            "changes": self.changes.to_json(),
        }

    def markdown(self) -> str:
        return self.changes.markdown()


def add(workspace: Workspace, source_path: Path, data: Data | None = None, *, resize: int | None = None) -> Report:
    """Makes `source_path` (any layout of raw data) the workspace's data/; the caller versions it with DVC.

    data: default the workspace's params. resize: an edge in pixels, written to data.resize once the data are in place.
    Everything is prepared as the stage would prepare it, in a temporary folder, before data/ is touched; the report is
    left for the next flow run. Raises BadInput, and then nothing has changed.
    """
    params = None
    if resize is not None:
        data = edit_params.resized(workspace, resize)
        params = edit_params.with_values(workspace, "data", resize=resize)
    known = dvc_cli.digest(workspace.root)
    changes = report(versioned(workspace, known), source_path, data or workspace.params().data)
    materialise("image_folder", workspace.data, path=source_path)
    if params is not None:
        write_atomically(workspace.root / "params.yaml", params)
    after = tree_digest(workspace.data)
    if after != known:
        data_news.leave(workspace, after, changes.markdown())
    return Report(known, after, changes)


def none_yet(workspace: Workspace) -> BadInput:
    """The error for a workspace to which no data were ever added."""
    fix = f"robustdistill{workspace_option(workspace.root)} data add PATH"
    return BadInput("there are no data yet", where=shown(workspace.data), fix=fix)


def require_there(workspace: Workspace) -> None:
    """Raises BadInput where there are no data, with what brings them."""
    if workspace.data.is_dir():
        return
    if dvc_cli.digest(workspace.root) is None:
        raise none_yet(workspace)
    fix = "dvc pull data.dvc, in the workspace; a flow run does it by itself"
    raise BadInput("the data of this workspace are not here", where=shown(workspace.data), fix=fix)


def versioned(workspace: Workspace, known: str | None) -> Path | None:
    """The data that new ones are compared with: data/ if it is what data.dvc says, else those prepared last, if any."""
    if known and workspace.data.is_dir() and tree_digest(workspace.data) == known:
        return workspace.data
    prepared = workspace.out("prepare")
    return prepared if prepared.exists() else None


def report(old: Path | None, new: Path, data: Data | None = None) -> Changes:
    """What changed from old to new; each is prepared data or raw data (`data` says how to prepare them).

    Old data that can no longer be prepared count as none. Raises BadInput if the new ones cannot be used.
    """
    with tempfile.TemporaryDirectory(prefix="robustdistill-") as scratch:
        after = _prepared(new, Path(scratch) / "new", data)
        before = _usable(old, Path(scratch) / "old", data) if old else None
        return compare(before, after)


def _usable(path: Path, scratch: Path, data: Data | None) -> Prepared | None:
    try:
        return _prepared(path, scratch, data)
    except BadInput:
        return None


def _prepared(path: Path, scratch: Path, data: Data | None) -> Prepared:
    if (path / MANIFEST).is_file():
        return Prepared.open(path)
    prepare(path, scratch, data or Data(source="image_folder"))
    return Prepared.open(scratch)


def tree_digest(folder: Path) -> str:
    """The digest that `dvc add` states for a folder, from the files themselves: MD5 of the listing, and `.dir`.

    The listing is JSON, [{"md5": …, "relpath": …}, …] in order of path (DVC 3). Raises BadInput if it is no folder.
    """
    if not folder.is_dir():
        raise BadInput("there is no such folder", where=shown(folder), fix="restore the data: dvc checkout data.dvc")
    files = (Path(base) / name for base, _, names in os.walk(folder) for name in names)
    listing = [{"md5": md5(path), "relpath": path.relative_to(folder).as_posix()} for path in files]
    listing.sort(key=lambda entry: entry["relpath"])
    text = json.dumps(listing, sort_keys=True).encode()
    return hashlib.md5(text, usedforsecurity=False).hexdigest() + ".dir"


def require_unaltered(workspace: Workspace, known: str) -> None:
    """DVC hands out whatever lies in its cache; what it names by a hash must have that hash. Raises BadInput, and then
    data/ is gone again."""
    found = tree_digest(workspace.data)
    if found != known:
        shutil.rmtree(workspace.data)
        raise BadInput(
            f"DVC's copy of the data was altered: its digest is {found}, data.dvc says {known}",
            where=str(workspace.root / ".dvc" / "cache"),
            fix="remove .dvc/cache, then `dvc pull data.dvc` from a good remote, or `robustdistill data add PATH`",
        )


def md5(path: Path) -> str:
    """Of a file. Raises BadInput if it cannot be read."""
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise BadInput(f"the file cannot be read: {error.strerror}", where=shown(path)) from error
    return digest.hexdigest()
