"""The flow's own part, with stages that only note that they ran: order, what is retried, what a refusal stops."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import retrain
from robustdistill.actions import chain, data_news, decide
from robustdistill.errors import BadInput, GateRefused, RobustDistillError, ServiceFailed, ServiceRefused
from robustdistill.services import dvc_cli
from robustdistill.stages.catalog import STAGES, parents
from robustdistill.workspace import Workspace

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(new: Path, copied: Callable[[Path], Path]) -> Path:
    return copied(new)


class Stages:
    """Stands in for `chain.run_stage`; fails as told."""

    def __init__(self, failures: dict[str, list[Exception]] | None = None) -> None:
        self.failures = failures or {}
        self.done: list[str] = []
        self._lock = threading.Lock()

    def __call__(self, workspace: Any, name: str, run: str) -> None:
        if self.failures.get(name):
            raise self.failures[name].pop(0)
        with self._lock:
            assert set(parents(name)) <= set(self.done), f"{name} began before what it reads was there"
            self.done.append(name)


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch, prefect_server: None) -> Stages:
    fake = Stages()
    monkeypatch.setattr(chain, "run_stage", fake)
    monkeypatch.setattr(dvc_cli, "changed", lambda root: list(STAGES))
    monkeypatch.setattr(retrain.version, "commit", lambda workspace, run: None)
    monkeypatch.setattr(retrain.report, "write", lambda workspace, run, *_: workspace.root / "report.html")
    return fake


def _refuse(workspace: Any) -> None:
    raise GateRefused("the teacher is not worth distilling")


def test_a_refused_teacher_stops_before_the_students(
    root: Path, stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decide, "require_worthy_teacher", _refuse)
    state = retrain.retrain(str(root), return_state=True)
    assert state.name == "Refused" and state.is_completed()
    assert "score@teacher" in stages.done
    rows = {row["name"]: row["withheld"] for row in state.result()["stages"]}
    assert {name for name, why in rows.items() if why} == set(chain.split(list(STAGES))[1])
    assert rows["score@student"] == "the teacher did not qualify" and rows["score@teacher"] == ""
    assert not {"student", "control"} & {name.split("@")[-1] for name in stages.done}


@pytest.mark.parametrize("kind", [BadInput, ServiceRefused])
def test_what_no_second_attempt_changes_is_not_tried_again(
    root: Path, stages: Stages, kind: type[RobustDistillError]
) -> None:
    stages.failures["prepare"] = [kind("an empty class"), kind("an empty class, again")]
    with pytest.raises(kind, match=r"an empty class$"):
        retrain.retrain(str(root))
    assert stages.done == []


def test_a_service_that_comes_back_is_waited_for(root: Path, stages: Stages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decide, "require_worthy_teacher", _refuse)
    stages.failures["initial"] = [ServiceFailed("the disk is full")]
    retrain.retrain(str(root))
    assert "initial" in stages.done


def test_a_dry_run_only_says_what_would_run(root: Path, stages: Stages) -> None:
    result = retrain.retrain(str(root), dry_run=True)
    assert result["outcome"] == "dry run" and "prepare" in result["sentence"]
    assert stages.done == []


def test_a_warm_start_waits_until_the_registry_is_mended(
    root: Path, stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The champion is another one before a promotion that a crash cut short has been completed."""
    done: list[str] = []

    def mend(current: Any) -> list[str]:
        time.sleep(0.5)
        done.append("mended")
        return []

    monkeypatch.setattr(decide, "reconciled", mend)
    monkeypatch.setattr(decide, "warm_start", lambda current: done.append(f"warm start, {len(stages.done)} stages"))
    monkeypatch.setattr(decide, "require_worthy_teacher", _refuse)
    retrain.retrain(str(root))
    assert not [word for word in done if "warm" in word]  # nobody asked for one
    params = root / "params.yaml"
    kept = params.read_text()
    params.write_text(kept.replace("warm_start: none", "warm_start: champion"))
    done.clear()
    stages.done.clear()
    retrain.retrain(str(root))
    params.write_text(kept)
    assert done == ["mended", "warm start, 0 stages"]


def test_an_event_about_other_data_is_refused(root: Path, stages: Stages) -> None:
    with pytest.raises(BadInput, match="asked for was"):
        retrain.retrain(str(root), data_digest="0" * 32 + ".dir")


def test_reports_of_changed_data_are_shown_by_one_run(
    root: Path, stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decide, "require_worthy_teacher", _refuse)
    shown: list[str] = []
    monkeypatch.setattr(retrain, "create_markdown_artifact", lambda text, **_: shown.append(text))
    data_news.leave(Workspace(root), "digest", "| class |")
    text = data_news.waiting(Workspace(root))
    retrain.retrain(str(root), dry_run=True)
    assert shown == [text] and data_news.waiting(Workspace(root)) == text
    retrain.retrain(str(root))
    assert shown == [text, text] and data_news.waiting(Workspace(root)) == ""
    retrain.retrain(str(root))
    assert shown == [text, text]
