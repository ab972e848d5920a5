"""What a crash left half-done is completed or reverted, so that there is one champion and it answers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from robustdistill.actions import champion, intent, owner
from robustdistill.errors import BadInput, ServiceFailed
from robustdistill.services.mlflow_store import Store

LONGEST = timedelta(hours=1)  # a promotion takes seconds; what is older was left by a machine that is gone


def _under_way(found: intent.Intent, work: Path) -> bool:
    """Whether its process may still run. One declared in this workspace does not: we hold the workspace's lock, and a
    container that starts again has another host name."""
    if intent.path(work).exists() or found.owner == owner.here():
        return False
    return owner.alive(found.owner) and _age(found) < LONGEST


def _age(found: intent.Intent) -> timedelta:
    try:
        return datetime.now(UTC) - datetime.fromisoformat(found.at)
    except (ValueError, TypeError):
        return LONGEST


def require_settled(store: Store, name: str, work: Path) -> None:
    """As `reconcile`; raises ServiceFailed if another process is moving the aliases of NAME right now."""
    done = reconcile(store, name, work)
    found = intent.pending(store, name, work)
    if found is not None and _under_way(found, work):
        raise ServiceFailed(
            done[0], where=name, fix="wait until it has ended, then try again; after an hour it counts as given up"
        )


def reconcile(store: Store, name: str, work: Path) -> list[str]:
    """Completes a promotion or rollback that has reached the registry, drops one that has not; says what it did.

    One whose process still runs is left alone. Raises ServiceFailed if MLflow or the version's files are away; then
    nothing was moved.
    """
    found = intent.pending(store, name, work)
    if found is None:
        intent.forget(work)
        return []
    if _under_way(found, work):
        return [f"a {found.kind} of {name} by {found.by} is under way ({found.owner}): left alone"]
    number = intent.target(store, found)
    if number is None:
        intent.clear(store, found, work)
        return [f"a promotion of {name} had not reached the registry: dropped; {champion.stays(store, name)}"]
    try:
        intent.smoke_test(store, name, number)
    except (intent.Unsound, BadInput) as error:
        intent.withdraw(store, found, number, work)
        return [f"a {found.kind} of {name} to version {number} was reverted: {error.cause}"]
    intent.complete(store, found, number, work)
    return [f"a {found.kind} of {name} to version {number} had been interrupted: completed"]
