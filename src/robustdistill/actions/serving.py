"""What people ask of registered models from the command line: what is there, and what a model says."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustdistill.actions import champion
from robustdistill.actions.intent import CHAMPION
from robustdistill.actions.register import SHA
from robustdistill.errors import BadInput
from robustdistill.services import mlflow_glance
from robustdistill.services.mlflow_address import Address
from robustdistill.services.mlflow_store import Store
from robustdistill.workspace import Workspace

OPENING = "opening the registry (some seconds) ..."

if TYPE_CHECKING:
    from robustdistill.actions.session import Session


def champion_folder(workspace: Workspace, say: Callable[[str], None]) -> Path:
    """The files of the champion, from the registry. say: takes notes. Raises BadInput if there is none, or if its class
    names or input range are not those that were registered.

    Which version is champion, and its hashes, are looked up anew each time; only where that can be read from the file
    of an embedded registry, and the files are here and match, MLflow is left out.
    """
    address, models = Address.find(None, workspace.work), workspace.work / "models"
    seen = mlflow_glance.version(address, workspace.name, CHAMPION)
    here = champion.kept(seen, models, say) if seen else None
    if here is not None:
        return here
    say(OPENING)
    try:
        return registered_folder(workspace, workspace.name, CHAMPION, say)
    except BadInput as error:
        last = workspace.out("export@student")
        if not last.is_dir():
            raise
        raise BadInput(error.cause, where=error.where, fix=f"{error.fix}; or ask the last: --model {last}") from error


def registered_folder(
    workspace: Workspace, name: str, version: int | str, say: Callable[[str], None] = lambda _: None
) -> Path:
    """The files of a version of any registered model. say: takes notes. Raises BadInput if it is not there."""
    return champion.require(Store.open(None, workspace.work), name, version, workspace.work / "models", say)


def predict(folder: Path, images: Sequence[Path], *, resize: bool = False) -> list[dict[str, Any]]:
    """One answer an image, by the served runtime. resize: scale images of another size, even if training did not."""
    from robustdistill.runtime.predictor import Predictor

    answers = Predictor(folder, resize=resize).predict(list(images))
    return [{"image": str(path), **answer} for path, answer in zip(images, answers, strict=True)]


def versions(workspace: Workspace) -> list[dict[str, Any]]:
    """Versions of NAME and NAME-candidates, newest first, with their aliases and content hashes."""
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
