"""From finished stages to a decision: is the teacher worth distilling, does the student pass, who is champion."""

from __future__ import annotations

import getpass
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustdistill.actions import (
    champion,
    looks,
    package,
    promote,
    reconcile,
    record,
    records,
    references,
    register,
    teacher,
)
from robustdistill.actions.intent import CHALLENGER, WAITING
from robustdistill.actions.replay import replay
from robustdistill.actions.session import Session
from robustdistill.actions.summary import Outcome
from robustdistill.actions.version import require_unaltered_results
from robustdistill.errors import BadInput, GateRefused, ServiceFailed, ServiceRefused, Unhealthy
from robustdistill.gate.qualify import qualify
from robustdistill.gate.rules import require_known
from robustdistill.gate.scorecard import Evidence
from robustdistill.gate.verdict import Verdict, verdict
from robustdistill.journal import Journal
from robustdistill.release.card import model_card
from robustdistill.services import dvc_cli
from robustdistill.workspace import Workspace

TEACHER = "robustdistill.teacher_sha256"


@dataclass(frozen=True)
class Decision:
    """What the gate said of the student, and what was done about it."""

    outcome: Outcome
    sentence: str
    verdict: Mapping[str, Any] | None
    registry: list[str]


def reconciled(current: Session, *, dry_run: bool = False) -> list[str]:
    """Completes or drops a promotion that a crash left, and pushes records that are owed, unless in a dry run, which
    moves nothing; ends runs whose process is gone. Says what was done. What these credentials may not mend is left to
    the promoter."""
    workspace, store = current.workspace, current.store
    done = [] if dry_run else _mended(current)
    done += [f"run {name} was killed" for name in record.reap(store, workspace.name)]
    for sentence in done:
        Journal(workspace.journal, "reconcile").write("note", message=sentence)
    return done


def _mended(current: Session) -> list[str]:
    workspace, store = current.workspace, current.store
    try:
        done = reconcile.reconcile(store, workspace.name, workspace.work)
    except ServiceRefused:
        current.awaits = f"a promotion of {workspace.name} that was cut short"
        done = [f"{current.awaits} is left as it is: these credentials may not mend it, the promoter's next run does"]
    return [*done, *filter(None, [records.push(workspace.work)])]


def require_sound_policy(workspace: Workspace) -> None:
    """Before hours of training. Raises BadInput. Not for a rollback, which has to work when all else does not."""
    require_known(workspace.policy())


def evidence(workspace: Workspace, model: str) -> Evidence:
    return Evidence.load(workspace.artifacts / "score" / model)


def judge_teacher(workspace: Workspace) -> Verdict:
    """The gate's verdict on the teacher: is it worth the cost of a student?"""
    return qualify(workspace.policy(), evidence(workspace, "teacher"))


def refused_teacher(current: Session, cause: str) -> Decision:
    """The teacher was not worth it: what the gate said, and what stays.

    The refusal stands all the same if the scorecard cannot be read any more, or if the registry is away.
    """
    record, stays = None, "nothing was moved"
    with suppress(BadInput):
        record = judge_teacher(current.workspace).to_json()
    with suppress(ServiceFailed):
        stays = champion.stays(current.store, current.workspace.name)
    return Decision("refused", f"{cause}; {stays}", record, [])


def require_worthy_teacher(workspace: Workspace) -> Verdict:
    """Raises GateRefused or Unhealthy if the teacher is not worth the cost of a student."""
    result = judge_teacher(workspace)
    failed = [rule.sentence for rule in result.rules if rule.status == "fail"]
    if result.verdict == "unhealthy":
        raise Unhealthy("the teacher's evaluation cannot be trusted: " + "; ".join(failed))
    if result.verdict == "fail":
        fix = "train it longer or on a smaller eps, or lower policy.teacher; no student was trained"
        raise GateRefused("the teacher is not worth distilling: " + "; ".join(failed), where="policy.yaml", fix=fix)
    return result


def costs_of(export: Path) -> dict[str, float]:
    """What an exported model costs to serve: parameters, megabytes, and the median latency_ms on this machine, now."""
    record = json.loads((export / "export.json").read_text(encoding="utf-8"))
    return {
        "parameters": float(record["parameters"]),
        "megabytes": record["bytes"]["onnx"] / 1e6,
        "latency_ms": package.latency(export),
    }


def lineage(workspace: Workspace) -> dict[str, str]:
    """Where a student comes from, by hashes."""
    manifests = {
        stage: json.loads((workspace.artifacts / stage / "manifest.json").read_text(encoding="utf-8"))
        for stage in ("prepare", "adversaries")
    }
    model = json.loads((workspace.artifacts / "teacher" / "model.json").read_text(encoding="utf-8"))
    threat = evidence(workspace, "student").threat
    return {
        TEACHER: model["sha256"],
        "robustdistill.data_digest": dvc_cli.digest(workspace.root) or "",
        "robustdistill.prepared_digest": manifests["prepare"]["data_digest"],
        "robustdistill.adversaries_sha256": manifests["adversaries"]["digest"],
        "robustdistill.threat": threat.label(),
    }


def registered(current: Session) -> register.Registered:
    """The student as a version of NAME-candidates; an unchanged one makes no new version."""
    workspace = current.workspace
    require_unaltered_results(workspace)
    teacher.keep(workspace)
    export, score = workspace.artifacts / "export" / "student", workspace.artifacts / "score" / "student"
    card = json.loads((score / "scorecard.json").read_text(encoding="utf-8"))
    return register.register(
        current.store,
        workspace.name,
        export=export,
        scorecard=score / "scorecard.json",
        parent_run=current.recorder.parent_id,
        tags={**lineage(workspace), **_teacher_run(current)},
        description=model_card(card, None, _in_words(lineage(workspace))),
    )


def _teacher_run(current: Session) -> dict[str, str]:
    """The MLflow run that made the present teacher: the last one of its stage that ended well."""
    store = current.store
    experiment = store.experiment(current.workspace.name)
    runs = store.runs(experiment, tags={"robustdistill.stage": "teacher"}, status="FINISHED")
    return {"robustdistill.teacher_run": runs[0].id} if runs else {}


def _in_words(tags: Mapping[str, str]) -> dict[str, str]:
    return {key.removeprefix("robustdistill.").replace("_", " "): value for key, value in tags.items()}


def asks_for_champion(workspace: Workspace, todo: list[str]) -> bool:
    """Whether a teacher is about to be trained that begins from the teacher of today's champion."""
    asked = workspace.params().teacher
    return "teacher" in todo and asked.source == "train" and asked.warm_start == "champion"


def warm_start(current: Session) -> None:
    """Pins the teacher of today's champion as the first weights of the next one; reconciled before, or it may be the
    wrong one. The student saw all that its teacher saw, so its list of examples stands for the teacher's."""
    workspace, store = current.workspace, current.store
    number, _ = champion.current(store, workspace.name)
    if number is not None:
        tags = store.registry.version(workspace.name, number).tags
        export = champion.require(store, workspace.name, number, workspace.work / "models")
        teacher.begin_from(workspace, tags.get(TEACHER, ""), export)


def judge_student(current: Session) -> Verdict:
    """The gate's verdict on the student, on today's evidence."""
    workspace, against = current.workspace, references.gather(current)
    result = verdict(
        workspace.policy(),
        evidence(workspace, "student"),
        evidence(workspace, "control"),
        against.judged,
        costs_of(workspace.artifacts / "export" / "student"),
    )
    return looks.named(workspace, against.named(result))


def judge_references(current: Session) -> None:
    """What `judge_student` compares with is judged before it asks, so that nothing after this takes long.

    Raises BadInput for a result that was altered, and OutOfTime.
    """
    require_unaltered_results(current.workspace)
    references.gather(current)


def settle(current: Session, candidate: register.Registered, result: Verdict) -> Decision:
    """Promotes, waits for a person, or refuses; says so in one sentence."""
    workspace, store = current.workspace, current.store
    name, record = workspace.name, result.to_json()
    here, again = f"{name}-candidates version {candidate.version}", f"robustdistill promote {candidate.version}"
    tags = store.registry.version(candidate.name, candidate.version).tags
    if unmoved := _unmoved(current, here, tags, result, again):
        return unmoved
    if result.verdict == "challenger" or current.incomparable:
        promote.challenger(store, name, candidate.version)
        waits = f"{here} passed and waits as `challenger`{_because(current)}: {again}"
        waits += f"; until then {champion.stays(store, name)}"
        place = champion.place(candidate.name, candidate.version, CHALLENGER)
        return Decision("challenger", waits, record, [*_held(current), place])
    if workspace.policy().promote == "promoter":
        return _offered(current, candidate, record, "promote: promoter")
    replayed = replay(
        champion.require(store, candidate.name, candidate.version, workspace.work / "models"),
        workspace.artifacts / "adversaries",
        evidence(workspace, "student"),
    )
    try:
        promoted = promote.promote(
            store, name, candidate.version, verdict=record,
            record=provenance(current) | {"replayed": replayed._asdict()},
            by=f"flow for {getpass.getuser()}", work=workspace.work,
        )  # fmt: skip
    except ServiceRefused:
        return _offered(current, candidate, record, "these credentials may not move it")
    before = f", before it version {promoted.previous}" if promoted.previous else ""
    sentence = f"{name} version {promoted.version} is champion{before}{records.owed(workspace.work)}"
    return Decision("promoted", sentence, record, [here, champion.place(name, promoted.version)])


def foreseen(current: Session, result: Verdict) -> Decision:
    """What `settle` would do and say, of a student that is not registered: nothing is written or moved."""
    workspace, store = current.workspace, current.store
    export, here = workspace.artifacts / "export" / "student", "this student"
    stays = champion.stays(store, workspace.name)
    if unmoved := _unmoved(current, here, register.identity(export), result, "robustdistill promote"):
        sentence = unmoved.sentence
    elif result.verdict == "challenger" or current.incomparable:
        sentence = f"{here} passed and would wait as `challenger`{_because(current)}; {stays}"
    elif workspace.policy().promote == "promoter":
        sentence = f"{here} passed and would wait for the promoter (promote: promoter); {stays}"
    else:
        replay(export, workspace.artifacts / "adversaries", evidence(workspace, "student"))
        sentence = f"{here} passed and would be promoted; {stays}"
    return Decision("dry run", sentence, result.to_json(), _held(current))


def _offered(current: Session, candidate: register.Registered, record: Mapping[str, Any], because: str) -> Decision:
    """Left to the promoter, whose flow is called when this run has ended and frees the workspace."""
    store, name = current.store, current.workspace.name
    promote.offer(store, name, candidate.version, verdict=record, run=current.run)
    current.awaits = f"{candidate.name} version {candidate.version}"
    waits = f"{current.awaits} passed and waits for the promoter ({because}); until then {champion.stays(store, name)}"
    return Decision(
        "waiting", waits, record, [*_held(current), champion.place(candidate.name, candidate.version, WAITING)]
    )


def _held(current: Session) -> list[str]:
    """The champion's place, if there is one."""
    version, _ = champion.current(current.store, current.workspace.name)
    return [] if version is None else [champion.place(current.workspace.name, version)]


def _because(current: Session) -> str:
    return f" ({current.incomparable})" if current.incomparable else ""


def _unmoved(current: Session, here: str, tags: Mapping[str, str], result: Verdict, again: str) -> Decision | None:
    """The decision where nothing is to be moved; None where the student passed and is not in use.

    here: what the student is called. tags: of its version, or as it would have. again: the command that promotes it.
    """
    store, name, record, held = current.store, current.workspace.name, result.to_json(), _held(current)
    if champion.reigns(store, name, tags):
        if result.verdict in promote.PASSED:
            return Decision("unchanged", f"{held[0]}, stays: this student is the champion already", record, held)
        return Decision("refused", f"{held[0]}, no longer satisfies policy.yaml, but stays in use", record, held)
    if result.verdict == "unhealthy":
        sentence = f"the evaluation of {here} cannot be trusted; {champion.stays(store, name)}"
        return Decision("unhealthy", sentence, record, [here, *held])
    if result.verdict == "fail":
        sentence = f"{here} did not pass the gate; {champion.stays(store, name)}"
        return Decision("refused", sentence, record, [here, *held])
    gone = champion.withdrawn(store, name, tags[register.SHA])
    if gone is not None:
        back = f"this student is version {gone}, which a rollback withdrew; {again} brings it back"
        return Decision("unchanged", f"{champion.stays(store, name)}: {back}", record, held)
    return None


def provenance(current: Session) -> dict[str, Any]:
    """What the promotion's record keeps beside the verdict."""
    score = current.workspace.artifacts / "score" / "student" / "scorecard.json"
    return {
        "run": current.run,
        "lineage": lineage(current.workspace),
        "scorecard": json.loads(score.read_text(encoding="utf-8")),
    }
