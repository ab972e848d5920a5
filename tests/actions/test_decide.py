"""What is done about a verdict: a rollback stands, and what cannot be compared waits for a person."""

from __future__ import annotations

import json

import pytest
from toy_session import Replayed, Session, Workspace

from robustdistill.actions import champion, decide, intent, reconcile
from robustdistill.actions.promote import OFFER, promote, rollback
from robustdistill.actions.register import Registered
from robustdistill.actions.report import verdict_markdown
from robustdistill.actions.summary import Summary
from robustdistill.errors import BadInput, ServiceFailed, ServiceRefused
from robustdistill.gate.verdict import Verdict
from robustdistill.services.mlflow_registry import Registry

PASS = Verdict("pass", "0" * 64, [], None, {})


@pytest.fixture
def current(store, work, registered, monkeypatch):
    """Two versions promoted, the second is champion."""
    for scale in (1.0, 2.0):
        promote(store, "toy", registered(scale), verdict={"verdict": "pass"}, record={}, by="me", work=work)
    monkeypatch.setattr(decide, "provenance", lambda current: {})
    return Session(Workspace(work), store)


def candidate(current, number):
    sha = current.store.registry.version("toy-candidates", number).tags["robustdistill.sha256"]
    return Registered("toy-candidates", number, False, sha)


def test_a_nightly_run_does_not_undo_a_rollback(current):
    rollback(current.store, "toy", None, by="me", why="complaints since noon", work=current.workspace.work)
    done = decide.settle(current, candidate(current, 2), PASS)
    assert done.outcome == "unchanged" and "a rollback withdrew" in done.sentence
    assert done.sentence.startswith("toy version 1, alias champion, stays in use: ")
    assert champion.current(current.store, "toy")[0] == 1


def test_what_passed_without_a_comparison_waits_for_a_person(current, registered):
    new = registered(3.0)
    current.incomparable = "the champion cannot be judged on today's data: it takes inputs of another shape"
    done = decide.settle(current, candidate(current, new), PASS)
    assert done.outcome == "challenger" and "it takes inputs of another shape" in done.sentence
    assert done.registry[-1] == f"toy-candidates version {new}, alias challenger"
    assert champion.current(current.store, "toy")[0] == 2
    assert current.store.registry.aliases("toy-candidates")["challenger"] == new


@pytest.mark.parametrize(("verdict", "outcome"), [("fail", "refused"), ("unhealthy", "unhealthy")])
def test_what_did_not_pass_moves_nothing(current, registered, verdict, outcome):
    done = decide.settle(current, candidate(current, registered(3.0)), Verdict(verdict, "0" * 64, [], None, {}))
    assert done.outcome == outcome
    assert done.sentence.endswith("; toy version 2, alias champion, stays in use")
    assert champion.current(current.store, "toy")[0] == 2


def test_a_first_refusal_says_that_there_is_no_champion(store, work, registered):
    current = Session(Workspace(work), store)
    done = decide.settle(current, candidate(current, registered(1.0)), Verdict("fail", "0" * 64, [], None, {}))
    assert done.sentence == "toy-candidates version 1 did not pass the gate; toy still has no champion"
    assert done.registry == ["toy-candidates version 1"]


def test_a_promotion_names_version_and_alias(current, registered, monkeypatch):
    monkeypatch.setattr(decide, "evidence", lambda *_: None)
    monkeypatch.setattr(decide, "replay", lambda *_: Replayed())
    done = decide.settle(current, candidate(current, registered(3.0)), PASS)
    assert (done.outcome, done.sentence) == ("promoted", "toy version 3 is champion, before it version 2")
    assert done.registry == ["toy-candidates version 3", "toy version 3, alias champion"]


def foreseen(current, number, monkeypatch, result=PASS):
    """What a dry run says of a student like this candidate."""
    known = current.store.registry.version("toy-candidates", number).tags
    monkeypatch.setattr(decide.register, "identity", lambda _: known)
    monkeypatch.setattr(decide, "evidence", lambda *_: None)
    monkeypatch.setattr(decide, "replay", lambda *_: Replayed())
    before = state(current.store)
    done = decide.foreseen(current, result)
    assert state(current.store) == before
    assert (done.outcome, done.registry) == ("dry run", ["toy version 2, alias champion"])
    return done.sentence


def state(store):
    """Versions, their tags and aliases of both models."""
    names = ("toy", "toy-candidates")
    return {
        name: (store.registry.versions(name), store.registry.aliases(name), store.registry.tags(name)) for name in names
    }


def test_a_dry_run_says_what_would_be_promoted_and_writes_nothing(current, registered, monkeypatch):
    new = registered(3.0)
    stays = "toy version 2, alias champion, stays in use"
    assert foreseen(current, new, monkeypatch) == f"this student passed and would be promoted; {stays}"
    fail = Verdict("fail", "0" * 64, [], None, {})
    assert foreseen(current, new, monkeypatch, fail) == f"this student did not pass the gate; {stays}"
    current.incomparable = "it takes inputs of another shape"
    waits = foreseen(current, new, monkeypatch)
    assert waits == f"this student passed and would wait as `challenger` (it takes inputs of another shape); {stays}"
    assert foreseen(current, 2, monkeypatch).endswith("stays: this student is the champion already")


def test_a_dry_run_leaves_what_a_crash_left_to_the_next_run(current, registered, monkeypatch):
    store, work = current.store, current.workspace.work
    with monkeypatch.context() as patch:
        patch.setattr(intent, "complete", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            promote(store, "toy", registered(3.0), verdict={"verdict": "pass"}, record={}, by="me", work=work)
    before = state(store)
    assert decide.reconciled(current, dry_run=True) == []
    assert state(store) == before and intent.pending(store, "toy", work) is not None


@pytest.mark.parametrize(("verdict", "code"), [("pass", 0), ("challenger", 0), ("fail", 1), ("unhealthy", 3)])
def test_a_dry_run_ends_with_the_code_of_the_run_it_foresees(verdict, code):
    assert Summary("here", "dry run", "", verdict={"verdict": verdict}).exit_code == code


@pytest.mark.parametrize("away", [False, True])
def test_a_refused_teacher_says_what_stays(current, monkeypatch, away):
    """Also where the registry cannot be asked: the refusal stands."""
    monkeypatch.setattr(decide, "judge_teacher", lambda _: PASS)
    if away:
        monkeypatch.setattr(champion, "current", unreachable)
    done = decide.refused_teacher(current, "not worth it")
    told = "nothing was moved" if away else "toy version 2, alias champion, stays in use"
    assert (done.outcome, done.sentence) == ("refused", f"not worth it; {told}")


def test_a_teacher_is_refused_even_if_its_scorecard_is_gone(current, monkeypatch):
    def gone(_):
        raise BadInput("there is no scorecard")

    monkeypatch.setattr(decide, "judge_teacher", gone)
    done = decide.refused_teacher(current, "not worth it")
    assert (done.outcome, done.verdict) == ("refused", None) and done.sentence.endswith("stays in use")


def unreachable(*_):
    raise ServiceFailed("the registry is away")


def test_a_verdict_reads_as_a_table():
    rule = {"rule": "robust", "status": "fail", "sentence": "below the floor"}
    assert "| ✘ | robust | below the floor |" in verdict_markdown({"verdict": "fail", "rules": [rule], "gain": None})


def test_a_warm_start_is_the_champions_after_what_a_crash_left_was_mended(current, registered, monkeypatch):
    """Version 3 was promoted when a crash came: asked too early, the teacher of version 2 would be taken."""
    store, work = current.store, current.workspace.work
    begun = []
    monkeypatch.setattr(decide.teacher, "begin_from", lambda workspace, sha, export: begun.append((sha, export)))
    for number in (1, 2):
        store.registry.tag("toy", number, {decide.TEACHER: f"teacher {number}"})
    number = registered(3.0)
    store.registry.tag("toy-candidates", number, {decide.TEACHER: "teacher 3"})
    with monkeypatch.context() as patch:
        patch.setattr(intent, "complete", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            promote(store, "toy", number, verdict={"verdict": "pass"}, record={}, by="me", work=work)
    reconcile.reconcile(store, "toy", work)
    decide.warm_start(current)
    sha = store.registry.version("toy", 3).tags["robustdistill.sha256"]
    assert begun == [("teacher 3", work / "models" / sha)]


def test_with_promote_promoter_what_passed_waits_for_the_promoter(current, registered):
    new = registered(3.0)
    current.workspace.promote = "promoter"
    done = decide.settle(current, candidate(current, new), PASS)
    assert done.outcome == "waiting" and "(promote: promoter)" in done.sentence
    assert done.registry[-1] == f"toy-candidates version {new}, alias waiting"
    assert champion.current(current.store, "toy")[0] == 2
    assert current.store.registry.aliases("toy-candidates") == {"waiting": new}
    offered = json.loads(current.store.registry.version("toy-candidates", new).tags[OFFER])
    assert offered == {"run": "r1", "verdict": PASS.to_json()}
    assert current.awaits == f"toy-candidates version {new}"


def test_credentials_that_may_not_move_the_champion_hand_over(current, registered, monkeypatch):
    new = registered(3.0)
    monkeypatch.setattr(decide, "replay", lambda *_: Replayed())
    monkeypatch.setattr(decide, "evidence", lambda *_: None)
    forbid(monkeypatch)
    done = decide.settle(current, candidate(current, new), PASS)
    assert done.outcome == "waiting" and "these credentials may not move it" in done.sentence
    assert not intent.path(current.workspace.work).exists()
    assert current.store.registry.aliases("toy-candidates") == {"waiting": new}
    assert champion.current(current.store, "toy")[0] == 2


def test_what_these_credentials_may_not_mend_is_left_to_the_promoter(current, monkeypatch):
    """A promoter's intent is pending: a trainer's flow goes on, and calls the promoter when it has ended."""
    plan = intent.Intent.new("rollback", "toy", current.store.registry, by="me", why="x", target=1)
    intent.declare(current.store, plan, current.workspace.work)
    with monkeypatch.context() as patch:
        forbid(patch)
        (said,) = decide.reconciled(current)
    assert "may not mend it" in said and current.awaits
    assert intent.pending(current.store, "toy", current.workspace.work) == plan
    (said,) = decide.reconciled(current)
    assert "completed" in said and champion.current(current.store, "toy")[0] == 1


def forbid(monkeypatch):
    """NAME may be read and not written, as MLflow's basic auth has it for a trainer."""

    def guard(method):
        def call(self, name, *given, **named):
            if name == "toy":
                raise ServiceRefused("MLflow: Permission denied")
            return method(self, name, *given, **named)

        return call

    for method in ("tag_model", "tag", "point", "create"):
        monkeypatch.setattr(Registry, method, guard(getattr(Registry, method)))
