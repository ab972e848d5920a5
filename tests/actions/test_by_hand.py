"""A registered version judged today: its verdict asks what can be asked of it alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from robustdistill import recipes
from robustdistill.actions import by_hand, champion
from robustdistill.actions.references import References
from robustdistill.actions.report import verdict_markdown
from robustdistill.errors import BadInput
from robustdistill.gate.scorecard import Evidence
from robustdistill.services.mlflow_store import Store

N = 30


def _evidence() -> Evidence:
    labels, right = np.arange(N) % 3, np.ones(N, dtype=bool)
    card: dict[str, Any] = {
        "subject": {"sha256": "s", "onnx_sha256": "o", "parameters": 9_000, "access": "gradient"},
        "threat": {"norm": "linf", "eps": 0.1, "low": 0.0, "high": 1.0},
        "sample": {"n": N, "digest": "d", "chunk": 250, "split": "test"},
        "robust": {"accuracy": 1.0},
        "per_class": [{"class": f"c{k}", "n": 10, "clean": 1.0, "robust": 1.0} for k in range(3)],
        "attacks": [{"name": "pgd"}],
        "health": [{"name": "order", "ok": True, "level": "error", "sentence": "attacks are ordered"}],
    }
    return Evidence(card, np.arange(N), labels, labels, {"pgd": right})


@pytest.mark.parametrize("gain", ["inform", "block"])
def test_a_gain_is_not_asked_of_a_version_without_its_control(
    gain: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    policy = recipes.load("digits").policy.model_copy(update={"gain": gain})
    workspace = SimpleNamespace(root="/w", name="toy", policy=lambda: policy, work=tmp_path)
    current: Any = SimpleNamespace(workspace=workspace, store=None, run="r")
    monkeypatch.setattr(by_hand, "require_unaltered_results", lambda *_: None)
    monkeypatch.setattr(by_hand, "_export", lambda *_: None)
    monkeypatch.setattr(by_hand, "_is_champion", lambda *_: False)
    monkeypatch.setattr(by_hand, "_content", lambda *_: "c")
    monkeypatch.setattr(by_hand, "rescored", lambda *_, **__: _evidence())
    monkeypatch.setattr(by_hand.references, "gather", lambda _: References({}, []))
    monkeypatch.setattr(by_hand.decide, "costs_of", lambda _: {"megabytes": 0.1, "latency_ms": 0.1})
    monkeypatch.setattr(by_hand.drift, "measure", lambda *_: None)
    monkeypatch.setattr(champion, "current", lambda *_: (1, "s"))
    summary = by_hand.judge_champion(current)
    candidate = by_hand.judge_candidate(current, 1).to_json()
    assert summary.verdict is not None and summary.outcome == "unchanged"
    for record in (summary.verdict, candidate):
        assert record["gain"] is None and record["verdict"] in ("pass", "challenger")
        told = verdict_markdown(record)
        assert "gain" not in told.lower() and "control" not in told and "robust" in told


def test_a_version_that_is_not_there_is_said_before_a_run_is_opened(
    store: Store, work: Path, registered: Callable[..., int]
) -> None:
    workspace: Any = SimpleNamespace(name="toy", work=work)
    number = registered(1.0)
    before = store.runs(store.experiment("toy"))
    by_hand.require_there(workspace, number, rollback=False)
    by_hand.require_there(workspace, None, rollback=True)
    for version, rollback, words in (
        (99, False, "toy-candidates has no version 99"),
        (1, True, "toy has no version 1"),
    ):
        with pytest.raises(BadInput, match=words):
            by_hand.require_there(workspace, version, rollback=rollback)
    assert store.runs(store.experiment("toy")) == before
