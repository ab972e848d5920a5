"""Registered versions as export folders on this machine, so that the judge can score them again."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from robustdistill.actions import package
from robustdistill.actions.absent import absent
from robustdistill.actions.intent import CHAMPION, STATE
from robustdistill.actions.register import READ, ROBUST, SHA, THREAT, same
from robustdistill.errors import BadInput, RobustDistillError, ServiceFailed
from robustdistill.services.mlflow_registry import Version
from robustdistill.services.mlflow_store import Store


def _silent(_: str) -> None: ...


def current(store: Store, name: str) -> tuple[int | None, str | None]:
    """(version, sha256 of its model.onnx) of NAME's champion; (None, None) before the first promotion."""
    number = store.registry.aliases(name).get(CHAMPION)
    if number is None:
        return None, None
    return number, store.registry.version(name, number).tags.get(SHA)


def reigns(store: Store, name: str, tags: Mapping[str, str]) -> bool:
    """Whether NAME's champion is the very model whose version has these tags."""
    number = store.registry.aliases(name).get(CHAMPION)
    return number is not None and same(store.registry.version(name, number).tags, tags)


def place(name: str, version: int, alias: str = CHAMPION) -> str:
    """Where a version stands, as reports and summaries name it: `digits version 2, alias champion`."""
    return f"{name} version {version}, alias {alias}"


def stays(store: Store, name: str) -> str:
    """What remains in use where nothing was moved, in words."""
    number, _ = current(store, name)
    return f"{name} still has no champion" if number is None else f"{place(name, number)}, stays in use"


def fetch(
    store: Store, name: str, alias_or_version: str | int, into: Path, say: Callable[[str], None] = _silent
) -> Path | None:
    """The version's files in `into`/<sha256 of model.onnx>/, hashes checked; None if there is no such alias.

    Fetched once: an intact folder is used again. say: takes a note on a version whose class names and input range no
    hash binds. Raises BadInput for a number that does not exist, and if class names, input range or scaling are not
    those that were registered; ServiceFailed if other files are not.
    """
    text = str(alias_or_version)
    number = int(text) if text.isdigit() else store.registry.aliases(name).get(text)
    if number is None:
        return None
    version = store.registry.version(name, number)
    if SHA not in version.tags:
        raise ServiceFailed(f"{name} version {number} was not registered by robustdistill", where=name)
    return kept(version, into, say) or _download(store, version, into, say)


def require(
    store: Store, name: str, alias_or_version: str | int, into: Path, say: Callable[[str], None] = _silent
) -> Path:
    """As `fetch`; BadInput that says what there is instead if there is no such version."""
    folder = fetch(store, name, alias_or_version, into, say)
    if folder is None:
        raise absent(store.registry, name, str(alias_or_version))
    return folder


def kept(version: Version, into: Path, say: Callable[[str], None] = _silent) -> Path | None:
    """The version's files if they were fetched before and are intact; needs no registry."""
    sha = version.tags.get(SHA)
    if not sha:
        return None
    try:
        package.smoke_test(into / sha, sha, version.tags.get(READ))
    except RobustDistillError:
        return None
    _note(version, say)
    return into / sha


def _download(store: Store, version: Version, into: Path, say: Callable[[str], None]) -> Path:
    sha = version.tags[SHA]
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into, prefix=".part-") as scratch:
        got = store.registry.download(version.name, version.number, Path(scratch) / "model")
        try:
            package.smoke_test(got, sha, version.tags.get(READ))
        except BadInput as error:  # the scratch folder is gone when this is read
            where = f"{version.name} version {version.number} in {store.address.shown}: export.json"
            raise BadInput(error.cause, where=where, fix=error.fix) from error
        shutil.rmtree(into / sha, ignore_errors=True)
        got.replace(into / sha)
    _note(version, say)
    return into / sha


def _note(version: Version, say: Callable[[str], None]) -> None:
    if READ not in version.tags:
        here = f"{version.name} version {version.number}"
        say(f"note: {here} is from before class names and input range were bound by a hash: they are taken as they are")


def confirmed(store: Store, name: str) -> list[Version]:
    """The versions of NAME that were promoted and stand by it: none abandoned by a crash or withdrawn by a rollback,
    nor an earlier one of contents that a rollback withdrew since, unless a person went back to it."""
    versions, holder = store.registry.versions(name), store.registry.aliases(name).get(CHAMPION)
    gone: dict[str, int] = {}
    for version in versions:
        if version.tags.get(STATE) == "withdrawn":
            sha256 = version.tags.get(SHA, "")
            gone[sha256] = max(version.number, gone.get(sha256, 0))
    return [
        version
        for version in versions
        if version.tags.get(STATE) == "confirmed"
        and (version.number == holder or version.number > gone.get(version.tags.get(SHA, ""), 0))
    ]


def withdrawn(store: Store, name: str, sha256: str) -> int | None:
    """The version of NAME with these contents that a rollback withdrew; None if they stand, or were never there."""
    if any(version.tags.get(SHA) == sha256 for version in confirmed(store, name)):
        return None
    same = [version for version in store.registry.versions(name) if version.tags.get(SHA) == sha256]
    return max((version.number for version in same if version.tags.get(STATE) == "withdrawn"), default=None)


def rivals(store: Store, name: str, threat: str | None = None) -> list[int]:
    """The versions of NAME that may be the best ever: the highest recorded robust accuracy first, each content once,
    the newest of equals first. threat: today's, as `register.threat_tag` writes it; default, the champion's.

    Recorded figures are of different days' test sets, so the best of these is known only when all are judged today.
    Figures under different threat models do not compare at all: versions under this one come first, the others after
    them, so that nobody escapes the comparison by a change of the threat model and back.
    """
    scored = [version for version in confirmed(store, name) if ROBUST in version.tags]
    if threat is None:
        holder = store.registry.aliases(name).get(CHAMPION)
        threat = next((version.tags.get(THREAT) for version in scored if version.number == holder), None)

    def rank(version: Version) -> tuple[bool, float, int]:
        try:
            robust = float(version.tags[ROBUST])
        except ValueError:  # a tag is what somebody wrote; one that is no figure must not stop the gate
            robust = 1.0
        return version.tags.get(THREAT) == threat, robust, version.number

    distinct: dict[str, int] = {}
    for version in sorted(scored, key=rank, reverse=True):
        distinct.setdefault(version.tags[SHA], version.number)
    return [*distinct.values()]
