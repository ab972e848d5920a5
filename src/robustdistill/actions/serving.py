"""What people ask of registered models from the command line: what is there, and what a model says."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustdistill.errors import BadInput
from robustdistill.workspace import Workspace

if TYPE_CHECKING:
    from robustdistill.actions.session import Session


def champion_folder(workspace: Workspace, version: int | str = "champion") -> Path:
    """The files of the champion (or another version or alias), from the registry. Raises BadInput if there is none."""
    try:
        return registered_folder(workspace, workspace.name, version)
    except BadInput as error:
        last = workspace.out("export@student")
        if not last.is_dir():
            raise
        raise BadInput(error.cause, where=error.where, fix=f"{error.fix}; or ask the last: --model {last}") from error


def registered_folder(workspace: Workspace, name: str, version: int | str) -> Path:
    """The files of a version of any registered model. Raises BadInput if it is not there."""
    from robustdistill.actions import champion
    from robustdistill.services.mlflow_store import Store

    return champion.require(Store.open(None, workspace.work), name, version, workspace.work / "models")


def predict(folder: Path, images: Sequence[Path], *, resize: bool = False) -> list[dict[str, Any]]:
    """One answer an image, by the served runtime. resize: scale images of another size, even if training did not."""
    from robustdistill.runtime.predictor import Predictor

    answers = Predictor(folder, resize=resize).predict(list(images))
    return [{"image": str(path), **answer} for path, answer in zip(images, answers, strict=True)]


def versions(workspace: Workspace) -> list[dict[str, Any]]:
    """Versions of NAME and NAME-candidates, newest first, with their aliases and content hashes."""
    from robustdistill.actions.register import SHA
    from robustdistill.services.mlflow_store import Store

    registry = Store.open(None, workspace.work).registry
    rows = []
    for name in (workspace.name, f"{workspace.name}-candidates"):
        aliases: dict[int, list[str]] = {}
        for alias, number in registry.aliases(name).items():
            aliases.setdefault(number, []).append(alias)
        for version in registry.versions(name):
            held = ", ".join(sorted(aliases.get(version.number, [])))
            sha256 = version.tags.get(SHA, "")
            rows.append({"name": name, "version": version.number, "aliases": held, "sha256": sha256})
    return rows


@contextmanager
def by_hand(workspace: Workspace, name: str, why: str) -> Iterator[Session]:
    """A recorded session that a person opened, not a flow."""
    from robustdistill.actions.session import session

    run = time.strftime("by-hand-%Y%m%d-%H%M%S", time.gmtime())
    with session(workspace, run, name=name, reason=why) as current:
        yield current
