"""The promoter's half of the hand-over: judged anew, then promoted, refused, or left to a person; one champion."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from toy_session import Crash, Replayed, Session, Workspace, crash_before

from robustdistill.actions import by_hand, champion, decide, intent, take_over
from robustdistill.actions.promote import offer, promote, rollback
from robustdistill.actions.register import SHA
from robustdistill.errors import ServiceFailed
from robustdistill.gate.verdict import Verdict

PASS = Verdict("pass", "0" * 64, [], None, {})


@pytest.fixture
def current(store, work, registered, monkeypatch):
    """Version 1 is champion; candidate 2 waits."""
    promote(store, "toy", registered(1.0), verdict={"verdict": "pass"}, record={}, by="me", work=work)
    offer(store, "toy", registered(2.0), verdict={"verdict": "pass"}, run="r1")
    monkeypatch.setattr(by_hand, "rescored", lambda *_, **__: None)
    monkeypatch.setattr(by_hand, "replay", lambda *_: Replayed())
    said(monkeypatch, PASS)
    return Session(Workspace(work), store, run="r2")


def said(monkeypatch, verdict, incomparable=""):
    """What the gate says when the candidate is judged anew."""

    def judge(session, version):
        session.incomparable, session.judged = incomparable, by_hand._content(session, version)
        return verdict

    monkeypatch.setattr(by_hand, "judge_candidate", judge)


def taken(current):
    return take_over.take_over(current, by="the worker", why="handed over")


def aliases(current):
    registry = current.store.registry
    return registry.aliases("toy"), registry.aliases("toy-candidates")


def answer(current, number=2):
    return json.loads(current.store.registry.version("toy-candidates", number).tags[take_over.ANSWER])


def test_what_waits_is_promoted_once(current):
    assert taken(current).outcome == "promoted"
    assert aliases(current) == ({"champion": 2, "previous": 1}, {})
    record = json.loads(current.store.registry.version("toy", 2).tags[intent.RECORD])
    assert (record["by"], record["record"]["why"]) == ("the worker", "handed over")
    assert answer(current)["outcome"] == "promoted"
    again = taken(current)
    assert again.outcome == "unchanged" and again.sentence.startswith("nothing waits for the promoter")
    assert aliases(current) == ({"champion": 2, "previous": 1}, {})


@pytest.mark.parametrize(("verdict", "outcome"), [("fail", "refused"), ("unhealthy", "unhealthy")])
def test_what_does_not_pass_anew_waits_no_more(current, monkeypatch, verdict, outcome):
    said(monkeypatch, replace(PASS, verdict=verdict))
    assert taken(current).outcome == outcome
    assert aliases(current) == ({"champion": 1}, {})
    assert answer(current)["outcome"] == outcome


@pytest.mark.parametrize(
    ("verdict", "incomparable", "gain", "words"),
    [
        ("challenger", "", "inform", "promote: person"),
        ("pass", "the champion is lost", "inform", "the champion is lost"),
        ("pass", "", "block", "without its control"),
    ],
)
def test_what_a_person_decides_is_left_to_a_person(current, monkeypatch, verdict, incomparable, gain, words):
    said(monkeypatch, replace(PASS, verdict=verdict), incomparable)
    current.workspace.gain = gain
    done = taken(current)
    assert done.outcome == "challenger" and words in done.sentence and done.exit_code == 0
    assert aliases(current) == ({"champion": 1}, {"challenger": 2})


def test_what_a_rollback_withdrew_is_not_brought_back(current):
    taken(current)
    rollback(current.store, "toy", None, by="me", why="complaints", work=current.workspace.work)
    offer(current.store, "toy", 2, verdict={"verdict": "pass"}, run="r3")
    done = taken(current)
    assert done.outcome == "unchanged" and "a rollback withdrew" in done.sentence
    assert aliases(current) == ({"champion": 1, "previous": 2}, {})


def test_killed_between_any_two_steps_the_next_start_ends_it(current, monkeypatch):
    """Each time from the same beginning; the last attempt is not killed."""
    monkeypatch.setattr(intent, "smoke_test", lambda *_: None)  # of the files, which all stay as they are
    for nth in range(1, 40):
        with monkeypatch.context() as patch:
            crash_before(patch, nth)
            try:
                taken(current)
                ended = True
            except Crash:
                ended = False
        taken(current)
        number, _ = champion.current(current.store, "toy")
        assert current.store.registry.version("toy", number).tags[intent.STATE] == "confirmed"
        assert current.store.registry.version("toy", number).source == "models:/toy-candidates/2", nth
        assert aliases(current)[1] == {} and intent.pending(current.store, "toy", current.workspace.work) is None
        if ended:
            break
        current.store.registry.point("toy", "champion", 1)
        offer(current.store, "toy", 2, verdict={"verdict": "pass"}, run="r1")
    assert ended and nth > 8


def test_a_workspace_in_use_is_waited_for(monkeypatch):
    holders = iter(["7", "7", None])
    slept = []
    monkeypatch.setattr(take_over.time, "sleep", slept.append)
    workspace: Any = type("", (), {"holder": lambda self: next(holders)})()
    take_over.wait_until_free(workspace, 60)
    assert len(slept) == 2
    take_over.wait_until_free(type("", (), {"holder": lambda self: "7"})(), 0)  # type: ignore[arg-type]
    assert len(slept) == 2


def test_what_a_crash_left_is_mended_first(current):
    plan = intent.Intent.new("promotion", "toy", current.store.registry, by="me", candidate=2)
    intent.declare(current.store, plan, current.workspace.work)
    intent.copy(current.store, plan, {"verdict": {"verdict": "pass"}})
    done = taken(current)
    assert done.outcome == "unchanged" and "completed" in done.sentence
    assert aliases(current) == ({"champion": 2, "previous": 1}, {})
    assert decide.reconciled(current) == []


def test_a_candidate_that_is_changed_while_it_is_judged_is_not_promoted(current):
    current.judged = by_hand._content(current, 2)
    current.store.registry.tag("toy-candidates", 2, {SHA: "0" * 64})
    with pytest.raises(ServiceFailed, match="was changed while it was judged"):
        by_hand.promote_candidate(current, 2, PASS, by="me", why="test")
    assert current.store.registry.aliases("toy")["champion"] == 1
