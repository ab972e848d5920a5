"""Promotion, rollback and challengers: the only code that moves the aliases of NAME."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustdistill.actions import champion, intent, reconcile
from robustdistill.actions.absent import already, no_way_back
from robustdistill.actions.intent import CHALLENGER, CHAMPION, PREVIOUS, WAITING, Intent
from robustdistill.actions.register import candidates, same
from robustdistill.errors import GateRefused, ServiceFailed
from robustdistill.services.mlflow_store import Store

PASSED = ("pass", "challenger")
OFFER = "robustdistill.offer"  # on a candidate that waits for the promoter: the gate's verdict and the run


@dataclass(frozen=True)
class Promoted:
    """version: the champion of NAME now. previous: the one before it, the way back."""

    version: int
    previous: int | None


def promote(
    store: Store,
    name: str,
    candidate_version: int,
    *,
    verdict: Mapping[str, Any],
    record: Mapping[str, Any],
    by: str,
    work: Path,
) -> Promoted:
    """Version `candidate_version` of NAME-candidates becomes the champion of NAME; if it is already, nothing moves.

    A crash at any step leaves a state that `reconcile` completes or reverts. Raises GateRefused for a verdict other
    than pass or challenger, ServiceFailed if the version fails its smoke test, BadInput if it does not exist.
    """
    if verdict.get("verdict") not in PASSED:
        raise GateRefused(f"the gate said {verdict.get('verdict')!r}: this version is not promoted", where=name)
    reconcile.require_settled(store, name, work)
    registry = store.registry
    aliases = registry.aliases(name)
    candidate = registry.version(candidates(name), candidate_version)
    champion = aliases.get(CHAMPION)
    if champion is not None and same(registry.version(name, champion).tags, candidate.tags):
        return Promoted(champion, aliases.get(PREVIOUS))
    intent.smoke_test(store, candidate.name, candidate.number)
    registry.ensure(name, description=f"The promotion history of {name}; alias `champion` is the one to serve.")
    plan = Intent.new("promotion", name, registry, by=by, candidate=candidate.number)
    intent.declare(store, plan, work)
    told = {
        "verdict": dict(verdict),
        "policy_sha256": verdict.get("policy_sha256"),
        "record": dict(record),
        "candidate": candidate.number,
        "champion_before": plan.champion,
        "by": by,
        "at": plan.at,
    }
    number = intent.copy(store, plan, told)
    intent.complete(store, plan, number, work)
    return Promoted(number, plan.champion)


def rollback(store: Store, name: str, version: int | None, *, by: str, why: str, work: Path) -> Promoted:
    """The champion becomes version `version` of NAME, default the one before it. Leaves a record on both versions.

    Raises BadInput if there is nothing to go back to, ServiceFailed if that version fails its smoke test.
    """
    try:
        reconcile.reconcile(store, name, work)
    except ServiceFailed:  # the way back must not depend on the files of a version that was on its way in
        left = intent.pending(store, name, work)
        if left is not None:
            intent.withdraw(store, left, intent.target(store, left), work)
    aliases = store.registry.aliases(name)
    number = _way_back(store, name, aliases) if version is None else version
    if number is None:
        raise no_way_back(store.registry, name)
    if number == aliases.get(CHAMPION):
        raise already(store.registry, name, number)
    intent.smoke_test(store, name, number)
    plan = Intent.new("rollback", name, store.registry, by=by, why=why, target=number)
    intent.declare(store, plan, work)
    intent.complete(store, plan, number, work)
    return Promoted(number, plan.champion)


def _way_back(store: Store, name: str, aliases: Mapping[str, int]) -> int | None:
    """The version before the champion; if that was itself withdrawn, the newest that stands and is older."""
    standing, previous = [item.number for item in champion.confirmed(store, name)], aliases.get(PREVIOUS)
    if previous in standing:
        return previous
    return max((number for number in standing if number < aliases.get(CHAMPION, 0)), default=None)


def challenger(store: Store, name: str, candidate_version: int) -> None:
    """Marks a candidate that passed the gate and waits for a person. Raises BadInput if there is no such version."""
    store.registry.version(candidates(name), candidate_version)
    store.registry.point(candidates(name), CHALLENGER, candidate_version)


def offer(store: Store, name: str, candidate_version: int, *, verdict: Mapping[str, Any], run: str) -> None:
    """Marks a candidate that passed the gate and waits for who may move the champion; its verdict first, so that what
    waits always tells why. Any number of times."""
    told = {"verdict": dict(verdict), "run": run}
    store.registry.tag(candidates(name), candidate_version, {OFFER: intent.fitting(told)})
    store.registry.point(candidates(name), WAITING, candidate_version)
