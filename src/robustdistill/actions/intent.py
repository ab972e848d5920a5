"""The steps of a promotion or a rollback, written down before the first so that a crash between them can be mended.

    smoke test → intent (file and tag) → copy with its record → `previous`, `champion` → confirm → intent removed

Every step may be done again without harm. `complete` does those that are left, `withdraw` undoes.
"""

from __future__ import annotations

import json
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from robustdistill.actions import owner, package, records
from robustdistill.actions.register import READ, SHA, candidates
from robustdistill.errors import BadInput, ServiceFailed, ServiceRefused
from robustdistill.services.mlflow_registry import VERSION_TAG_LENGTH, Registry
from robustdistill.services.mlflow_store import Store
from robustdistill.workspace import write_atomically

CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"
WAITING = "waiting"  # of NAME-candidates: passed, and left to who may move the champion
TAG = "robustdistill.intent"  # on the registered model while a promotion is under way
TOKEN = "robustdistill.token"  # on a version: the intent it came from
RECORD = "robustdistill.record"
STATE = "robustdistill.state"  # of a version of NAME: promoting, confirmed, withdrawn, abandoned
ROLLBACKS = "robustdistill.rollbacks"
HELD = "champion.json"  # in .work: the last champion made from this workspace, should the registry be lost


class Unsound(ServiceFailed):
    """A version was fetched, and it is not what was registered or does not answer as it did."""


@dataclass(frozen=True)
class Intent:
    """What is about to be done to the aliases of `name`, and what they were before."""

    kind: Literal["promotion", "rollback"]
    name: str
    by: str
    why: str = ""
    candidate: int | None = None  # a promotion's version of NAME-candidates
    target: int | None = None  # a rollback's version of NAME
    champion: int | None = None
    previous: int | None = None
    token: str = ""
    owner: str = ""
    at: str = ""

    @classmethod
    def new(cls, kind: Literal["promotion", "rollback"], name: str, registry: Registry, **fields: Any) -> Intent:
        """An intent of this process, with the aliases as they are now."""
        aliases = registry.aliases(name)
        return cls(
            kind,
            name,
            champion=aliases.get(CHAMPION),
            previous=aliases.get(PREVIOUS),
            token=uuid.uuid4().hex,
            owner=owner.here(),
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            **fields,
        )

    def dumps(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def loads(cls, text: str) -> Intent | None:
        """None for a text that is no intent."""
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError):
            return None


def path(work: Path) -> Path:
    return work / "promotion.json"


def declare(store: Store, intent: Intent, work: Path) -> None:
    """Writes the intent where this machine finds it again, and where every other does.

    Raises ServiceRefused, and leaves nothing, for a user who may not write to NAME.
    """
    write_atomically(path(work), intent.dumps() + "\n")
    try:
        store.registry.tag_model(intent.name, TAG, intent.dumps())
    except ServiceRefused:
        forget(work)
        raise


def clear(store: Store, intent: Intent, work: Path) -> None:
    store.registry.tag_model(intent.name, TAG, None)
    forget(work)


def forget(work: Path) -> None:
    path(work).unlink(missing_ok=True)


def pending(store: Store, name: str, work: Path) -> Intent | None:
    """The intent for `name` that nobody has cleared yet.

    The file alone, without the tag: not declared yet, or settled from another machine; then nothing is pending.
    """
    told = Intent.loads(store.registry.tags(name).get(TAG, ""))
    if told is not None and told.name == name:
        return told
    kept = Intent.loads(path(work).read_text(encoding="utf-8")) if path(work).exists() else None
    return kept if kept is not None and kept.name == name and not _settled(store, kept) else None


def _settled(store: Store, intent: Intent) -> bool:
    """Whether the registry shows the end of it: `confirm` is the last step, and what comes later needs it."""
    number = target(store, intent)
    if number is None:
        return False
    tags = store.registry.version(intent.name, number).tags
    if intent.kind == "rollback":
        return any(item.get("token") == intent.token for item in json.loads(tags.get(ROLLBACKS, "[]")))
    return tags.get(STATE) != "promoting"


def smoke_test(store: Store, name: str, number: int) -> None:
    """Fetches exactly this version, checks its hashes and runs it.

    Raises BadInput if there is no such version, ServiceFailed if it cannot be fetched, Unsound if it does not hold.
    """
    version = store.registry.version(name, number)
    with tempfile.TemporaryDirectory() as scratch:
        folder = store.registry.download(name, number, Path(scratch) / "model")
        try:
            package.smoke_test(folder, version.tags.get(SHA, ""), version.tags.get(READ))
        except (ServiceFailed, BadInput) as error:
            raise Unsound(f"{name} version {number} fails its smoke test: {error.cause}", where=error.where) from error


def copy(store: Store, intent: Intent, record: Mapping[str, Any]) -> int:
    """The candidate as a new version of NAME that carries the promotion's record from its first moment."""
    source = store.registry.version(candidates(intent.name), intent.candidate or 0)
    own = {key: value for key, value in source.tags.items() if key != ROLLBACKS}  # a trainer may write its tags
    tags = {**own, RECORD: fitting(record), TOKEN: intent.token, STATE: "promoting"}
    location = f"models:/{source.name}/{source.number}"
    made = store.registry.create(intent.name, location, run=source.run, tags=tags, description=source.description)
    return made.number


def fitting(record: Mapping[str, Any]) -> str:
    """The record as JSON; without the bulk of its details if a tag cannot hold it."""
    text = json.dumps(record, sort_keys=True)
    if len(text) > VERSION_TAG_LENGTH:
        text = json.dumps({**record, "record": "too long for a tag; see the version's scorecard.json"}, sort_keys=True)
    return text[:VERSION_TAG_LENGTH]


def target(store: Store, intent: Intent) -> int | None:
    """The version of NAME that is to be champion; None if a promotion's copy was not made yet."""
    if intent.kind == "rollback":
        return intent.target
    copies = (item.number for item in store.registry.versions(intent.name) if item.tags.get(TOKEN) == intent.token)
    return next(copies, None)


def complete(store: Store, intent: Intent, number: int, work: Path) -> None:
    """Moves the aliases, confirms, and removes the intent. `previous` first, so that there is always a way back."""
    registry, name = store.registry, intent.name
    if intent.champion is not None and intent.champion != number:
        registry.point(name, PREVIOUS, intent.champion)
    registry.point(name, CHAMPION, number)
    if intent.kind == "rollback":
        _note_rollback(registry, intent, number)
    else:
        settle(registry, name, intent.candidate)
    registry.tag(name, number, {STATE: "confirmed"})
    records.owe(work, _told(registry, intent, number))
    write_atomically(work / HELD, json.dumps({"name": name, "version": number}) + "\n")
    clear(store, intent, work)


def settle(registry: Registry, name: str, candidate: int | None) -> None:
    """A candidate that was decided on waits no more."""
    held = registry.aliases(candidates(name))
    for alias in (CHALLENGER, WAITING):
        if held.get(alias) is not None and held[alias] == candidate:
            registry.point(candidates(name), alias, None)


def _told(registry: Registry, intent: Intent, number: int) -> dict[str, Any]:
    """What is kept for good of a promotion or rollback: the same from whichever start completes it."""
    told = {key: value for key, value in asdict(intent).items() if key != "owner"}
    tags = registry.version(intent.name, number).tags
    kept = {"record": tags.get(RECORD, "")} if intent.kind == "promotion" else {}
    return {**told, "version": number, "sha256": tags.get(SHA, ""), **kept}


def _note_rollback(registry: Registry, intent: Intent, number: int) -> None:
    told = {
        "token": intent.token,
        "from": intent.champion,
        "to": number,
        "by": intent.by,
        "why": intent.why,
        "at": intent.at,
    }
    history = json.loads(registry.version(intent.name, number).tags.get(ROLLBACKS, "[]"))
    if all(item.get("token") != intent.token for item in history):
        registry.tag(intent.name, number, {ROLLBACKS: json.dumps([*history, told], sort_keys=True)})
    if intent.champion is not None:
        withdrawn = f"by {intent.by} on {intent.at}: {intent.why}"
        registry.tag(intent.name, intent.champion, {STATE: "withdrawn", "robustdistill.withdrawn": withdrawn})


def withdraw(store: Store, intent: Intent, number: int | None, work: Path) -> None:
    """Puts the aliases back where they were before the intent; its copy, if there is one, stays as abandoned."""
    registry, name = store.registry, intent.name
    registry.point(name, CHAMPION, intent.champion)
    registry.point(name, PREVIOUS, intent.previous)
    if number is not None and intent.kind == "promotion":
        registry.tag(name, number, {STATE: "abandoned"})
    clear(store, intent, work)
