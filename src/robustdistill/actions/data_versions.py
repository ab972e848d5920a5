"""The versions of the raw data that the workspace's history knows, and the way back to one of them.

Every version is a data.dvc in some commit of the workspace; its files lie in DVC's cache or remote under their hashes.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from robustdistill.actions import data, data_news
from robustdistill.errors import BadInput
from robustdistill.inputs import shown
from robustdistill.services import dvc_cli, dvc_remote, git_cli
from robustdistill.workspace import Workspace, workspace_option, write_atomically

FILE = "data.dvc"
SHORTEST = 4  # digits that may stand for a digest


@dataclass(frozen=True)
class Known:
    """One version. date: ISO 8601, of the last commit that has it. commit: "" if none has it yet. files, size (bytes):
    None where data.dvc does not say. text: its data.dvc. here: it is the one that data.dvc names now."""

    digest: str
    date: str
    files: int | None
    size: int | None
    commit: str
    text: str
    here: bool = False

    def to_json(self) -> dict[str, Any]:
        kept = ("digest", "date", "files", "size", "commit", "here")
        return {key: getattr(self, key) for key in kept}


def versions(workspace: Workspace) -> list[Known]:
    """Newest first, each digest once; the data that are in no commit yet before all others."""
    now, found = dvc_cli.digest(workspace.root), dict[str, Known]()
    for commit, date in git_cli.history(workspace.root, FILE):
        known = _known(git_cli.show(workspace.root, commit, FILE) or "", date, commit)
        if known is not None:
            found.setdefault(known.digest, known)
    if now is not None and now not in found:
        known = _known((workspace.root / FILE).read_text(encoding="utf-8"), "", "")
        found = {now: known, **found} if known else found
    return [replace(known, here=known.digest == now) for known in found.values()]


def _known(text: str, date: str, commit: str) -> Known | None:
    """None for a text that is no data.dvc, as in a commit that removed it."""
    try:
        out = yaml.safe_load(text)["outs"][0]
        digest, files, size = out["md5"], out.get("nfiles"), out.get("size")
    except (yaml.YAMLError, KeyError, IndexError, TypeError, AttributeError):
        return None
    return Known(digest, date, files, size, commit, text) if dvc_cli.DIGEST.fullmatch(str(digest)) else None


def was_there(workspace: Workspace, digest: str) -> bool:
    """Whether these were the data at some time: in a commit, or added and followed by others before there was one."""
    told = f"{data_news.HEADING}{digest}" in data_news.waiting(workspace).splitlines()
    return told or any(known.digest == digest for known in versions(workspace))


def use(workspace: Workspace, digest: str) -> data.Report | None:
    """Makes the version of this digest (its first digits are enough) the workspace's data, in a commit of its own.
    None if it is in place already.

    The caller holds the workspace's lock. It comes from DVC's cache or remote and is checked against its digest; what
    changed is left for the next flow run. Where anything fails, data/ and data.dvc stay as they were. Raises BadInput
    for an unknown digest, for data/ that holds what no version has, for data that params.yaml cannot use any more, and
    if DVC's copy was altered; ServiceFailed or ServiceRefused if the remote cannot be asked or lacks a file.
    """
    dvc_cli.require_repository(workspace.root)
    chosen = _chosen(workspace, digest.removesuffix(".dir"))
    before = _require_versioned(workspace)
    if before == chosen.digest and workspace.data.is_dir():
        return None
    if before is not None:
        git_cli.commit(workspace.root, [FILE], f"Data: {before}")  # or no commit would lead back to them
    with _exchanged(workspace, chosen) as old:
        changes = data.report(old, workspace.data, workspace.params().data)
        data_news.leave(workspace, chosen.digest, changes.markdown())
    git_cli.commit(workspace.root, [FILE], f"Data: back to {chosen.digest}")
    return data.Report(before, chosen.digest, changes)


def _chosen(workspace: Workspace, digits: str) -> Known:
    found = versions(workspace)
    fits = [known for known in found if len(digits) >= SHORTEST and known.digest.startswith(digits)]
    if len(fits) == 1:
        return fits[0]
    command = f"robustdistill{workspace_option(workspace.root)} data versions"
    cause = f"{len(fits)} versions of the data begin with" if fits else "no version of the data has the digest"
    raise BadInput(f"{cause} {digits!r}", where=str(workspace.root / FILE), fix=f"{command} lists them")


def _require_versioned(workspace: Workspace) -> str | None:
    """The digest of the data as they are, now whole in DVC's cache; None if there never were any."""
    recorded = dvc_cli.digest(workspace.root)
    if not workspace.data.is_dir():
        return recorded
    if data.tree_digest(workspace.data) != recorded:
        raise BadInput(
            "data/ holds what no version of the data has: going back would lose it",
            where=shown(workspace.data),
            fix="`dvc add data` in the workspace makes it a version; `dvc checkout data.dvc` drops it",
        )
    return dvc_cli.add_data(workspace.root)


@contextmanager
def _exchanged(workspace: Workspace, chosen: Known) -> Iterator[Path | None]:
    """Inside, data/ is the chosen version; given is the folder with the old data, else those prepared last, if any."""
    file, aside = workspace.root / FILE, workspace.work / "data-before"
    kept, prepared = file.read_text(encoding="utf-8") if file.exists() else None, workspace.out("prepare")
    shutil.rmtree(aside, ignore_errors=True)  # left by a crash; DVC's cache has it
    if moved := workspace.data.is_dir():
        aside.parent.mkdir(parents=True, exist_ok=True)
        workspace.data.rename(aside)
    try:
        write_atomically(file, chosen.text)
        dvc_remote.fetch_data(workspace.root, f"the version {chosen.digest} of the data is not in DVC's cache here")
        data.require_unaltered(workspace, chosen.digest)
        yield aside if moved else prepared if prepared.exists() else None
    except BaseException:
        shutil.rmtree(workspace.data, ignore_errors=True)
        if kept is None:
            file.unlink(missing_ok=True)
        else:
            write_atomically(file, kept)
        if moved:
            aside.rename(workspace.data)
        raise
    shutil.rmtree(aside, ignore_errors=True)
