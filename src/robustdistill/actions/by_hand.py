"""What a person asks of the registry: promote a candidate, roll back, judge the champion again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from robustdistill.actions import chain, champion, decide, drift, looks, promote, records, references
from robustdistill.actions.register import READ, SHA, candidates
from robustdistill.actions.replay import replay
from robustdistill.actions.rescored import rescored
from robustdistill.actions.session import Session
from robustdistill.actions.summary import Outcome, Summary
from robustdistill.actions.version import require_unaltered_results
from robustdistill.errors import BadInput, ServiceFailed
from robustdistill.gate.scorecard import Evidence
from robustdistill.gate.verdict import Verdict, verdict
from robustdistill.services.mlflow_store import Store
from robustdistill.workspace import Workspace


def require_said(by: str, why: str) -> None:
    """Raises BadInput if a record would not say who moves the champion, or why."""
    for option, text, example in (("--why", why, '"complaints since noon"'), ("--by", by, '"the on-call team"')):
        if not text.strip():
            cause = f"{option} is empty: the record of a promotion or rollback has to say it"
            raise BadInput(cause, where=option, fix=f"{option} {example}")


def require_there(workspace: Workspace, version: int | None, *, rollback: bool) -> None:
    """Raises BadInput if there is no such version, before a run is opened in MLflow."""
    if version is not None:
        name = workspace.name if rollback else candidates(workspace.name)
        Store.open(None, workspace.work).registry.version(name, version)


def _export(current: Session, name: str, version: int | str) -> Path:
    return champion.require(current.store, name, version, current.workspace.work / "models")


def _verdict(current: Session, judged: Evidence, others: Mapping[str, Evidence], export: Path) -> Verdict:
    """Today's policy on a registered version, less the question of gain: it comes without its control."""
    policy = current.workspace.policy().model_copy(update={"gain": "inform"})
    found = verdict(policy, judged, None, others, decide.costs_of(export))
    return replace(found, gain=None, rules=[rule for rule in found.rules if rule.rule != "gain"])


def judge_candidate(current: Session, version: int) -> Verdict:
    """The gate's verdict on a registered candidate, judged today."""
    workspace = current.workspace
    require_unaltered_results(workspace, chain.JUDGED_ON)
    current.judged = _content(current, version)
    export = _export(current, f"{workspace.name}-candidates", version)
    found = rescored(workspace, export, current.run, up_to_date=False)
    if _is_champion(current, version):
        return _verdict(current, found, {}, export)
    against = references.gather(current)
    return looks.named(workspace, against.named(_verdict(current, found, against.judged, export)))


def _content(current: Session, version: int) -> str:
    """What a candidate is, by its tags: its files are held against them, and who may write the candidate may write
    both."""
    tags = current.store.registry.version(candidates(current.workspace.name), version).tags
    return f"{tags.get(SHA, '')} {tags.get(READ, '')}"


def _is_champion(current: Session, version: int) -> bool:
    store, name = current.store, current.workspace.name
    return champion.reigns(store, name, store.registry.version(candidates(name), version).tags)


def promote_candidate(current: Session, version: int, result: Verdict, *, by: str, why: str) -> Summary:
    """Promotes what passed; a person's word stands in for `promote: person`."""
    workspace, record = current.workspace, result.to_json()
    here = f"{workspace.name}-candidates version {version}"
    if result.verdict == "unhealthy":
        sentence = f"the evaluation of {here} cannot be trusted; {champion.stays(current.store, workspace.name)}"
        return _summary(current, "unhealthy", sentence, record, [])
    if result.verdict == "fail":
        sentence = f"{here} did not pass the gate; {champion.stays(current.store, workspace.name)}"
        return _summary(current, "refused", sentence, record, [])
    if current.judged != _content(current, version):
        cause = f"{here} was changed while it was judged; nothing was promoted"
        raise ServiceFailed(cause, fix="see who did, and promote it again")
    export = _export(current, f"{workspace.name}-candidates", version)
    if _is_champion(current, version):
        number, _ = champion.current(current.store, workspace.name)
        stays = f"{champion.place(workspace.name, number or 0)}, stays: {here} is the champion already"
        return _summary(current, "unchanged", stays, record, [here])
    judged = rescored(workspace, export, current.run, up_to_date=False)
    replayed = replay(export, workspace.artifacts / "adversaries", judged)
    done = promote.promote(
        current.store, workspace.name, version, verdict=record,
        record={"run": current.run, "why": why, "replayed": replayed._asdict()}, by=by, work=workspace.work,
    )  # fmt: skip
    held = champion.place(workspace.name, done.version)
    sentence = f"{workspace.name} version {done.version} is champion{records.owed(workspace.work)}"
    return _summary(current, "promoted", sentence, record, [here, held])


def roll_back(current: Session, version: int | None, *, by: str, why: str) -> Summary:
    """Moves the champion to the version before it, or to a named one. Judges nothing."""
    name = current.workspace.name
    done = promote.rollback(current.store, name, version, by=by, why=why, work=current.workspace.work)
    sentence = f"{name} version {done.version} is champion again; it was version {done.previous}"
    sentence += records.owed(current.workspace.work)
    return _summary(current, "promoted", sentence, None, [champion.place(name, done.version)])


def judge_champion(current: Session) -> Summary:
    """Today's verdict on today's champion, against the floors and the best version so far. Nothing is moved.

    A fall below what was recorded at its promotion, under harder attacks and fresh draws, is said and put into
    `current.drift`; the policy alone decides on the outcome.
    """
    workspace = current.workspace
    require_unaltered_results(workspace, chain.JUDGED_ON)
    export = _export(current, workspace.name, "champion")
    found = rescored(workspace, export, current.run, up_to_date=False)
    against = references.gather(current)
    best = {key: value for key, value in against.judged.items() if key != "champion"}
    result = looks.named(workspace, against.named(_verdict(current, found, best, export)))
    outcome: Outcome = {"pass": "unchanged", "challenger": "unchanged", "unhealthy": "unhealthy"}.get(
        result.verdict, "refused"
    )  # type: ignore[assignment]
    version, _ = champion.current(current.store, workspace.name)
    robust = found.card["robust"]["accuracy"]
    says = {
        "unchanged": "still satisfies the policy",
        "unhealthy": "could not be judged",
        "refused": "no longer satisfies the policy",
    }
    sentence = f"the champion {says[outcome]}: robust accuracy {robust:.1%} today"
    if fall := drift.measure(current, export, found):
        sentence += f"; {fall.sentence}"
        if fall.beyond:
            current.drift = fall.to_json() | {"version": version or 0}
    registry = [champion.place(workspace.name, version)] if version else []
    return _summary(current, outcome, sentence, result.to_json(), registry)


def _summary(current: Session, outcome: Outcome, sentence: str, verdict: object, registry: list[str]) -> Summary:
    return Summary(str(current.workspace.root), outcome, sentence, verdict=verdict, registry=registry)  # type: ignore[arg-type]
