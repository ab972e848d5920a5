"""One sentence to people: off by default, by a block if named, and never a reason for a run to fail."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from robustdistill.services import prefect_events, prefect_notify
from robustdistill.services.prefect_notify import VARIABLE


class Block:
    """Stands in for a block of Prefect's server; load(slug) gives it."""

    def __init__(self) -> None:
        self.bodies: list[str] = []
        self.fault: Exception | None = None

    def load(self, slug: str) -> Block:
        assert slug in ("slack-webhook/team", "webhook/team")
        return self

    def raise_on_failure(self) -> Any:
        import contextlib

        return contextlib.nullcontext()

    def notify(self, body: str, subject: str) -> None:
        if self.fault:
            raise self.fault
        self.bodies.append(body)

    async def call(self, payload: dict[str, str]) -> Any:
        self.bodies.append(payload["text"])
        return SimpleNamespace(raise_for_status=lambda: None)


@pytest.fixture
def block(monkeypatch: pytest.MonkeyPatch) -> Block:
    made = Block()
    monkeypatch.setattr("prefect.blocks.core.Block.load", made.load)
    monkeypatch.setattr(prefect_events, "is_heard", lambda: True)
    monkeypatch.setattr(prefect_notify, "_page", lambda *_: "http://127.0.0.1:4200/runs/flow-run/1")
    return made


def test_nobody_is_told_unless_a_block_is_named(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert not prefect_notify.tell("retrain", "digits", "promoted", "digits version 1 is champion")
    assert block.bodies == []


@pytest.mark.parametrize("slug", ["slack-webhook/team", "webhook/team"])
def test_a_verdict_is_one_sentence_with_the_runs_page(block: Block, monkeypatch: pytest.MonkeyPatch, slug: str) -> None:
    monkeypatch.setenv(VARIABLE, slug)
    monkeypatch.setenv("SOME_TOKEN", "sesame-4711")
    assert prefect_notify.tell("retrain", "digits", "refused", "robust accuracy fell; sesame-4711")
    assert block.bodies == [
        "digits: retrain: refused: robust accuracy fell; ***\nhttp://127.0.0.1:4200/runs/flow-run/1"
    ]


def test_what_is_no_news_is_not_told(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "slack-webhook/team")
    for outcome in ("unchanged", "nothing new", "busy", "too few", "dry run"):
        assert not prefect_notify.tell("watch", "digits", outcome, "x")
    assert block.bodies == []


def test_what_goes_wrong_is_logged_without_the_address(
    block: Block, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(VARIABLE, "slack-webhook/team")
    block.fault = RuntimeError("POST https://hooks.example.org/services/secret-part failed")
    with caplog.at_level(logging.WARNING):
        assert not prefect_notify.tell("retrain", "digits", "promoted", "x")
    assert "nobody was notified (RuntimeError)" in caplog.text and "secret-part" not in caplog.text


def test_a_failed_run_is_an_event_and_a_notification(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "slack-webhook/team")
    told: list[Any] = []
    monkeypatch.setattr(prefect_events, "emit", lambda *given: told.append(given))
    monkeypatch.setattr(prefect_notify.Workspace, "find", lambda path: SimpleNamespace(name="digits"))
    run = SimpleNamespace(id="7", parameters={"workspace": "/models/digits"})
    state = SimpleNamespace(name="Failed", message="ServiceFailed: the disk is full")
    prefect_notify.failed(SimpleNamespace(name="retrain"), run, state)
    assert told[0][:2] == (prefect_events.RUN_FAILED, "digits") and told[0][2]["cause"] == state.message
    assert block.bodies == [
        "digits: retrain failed: ServiceFailed: the disk is full\nhttp://127.0.0.1:4200/runs/flow-run/1"
    ]
    run.parameters = {"workspace": "/gone"}
    monkeypatch.undo()
    prefect_notify.failed(SimpleNamespace(name="retrain"), run, state)  # no workspace, no block: nothing is raised
