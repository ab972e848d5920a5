"""The flow's own part, with stages that only note that they ran: order, what is retried, what a refusal stops."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import retrain
from robustdistill import budget
from robustdistill.actions import chain, data_news, decide
from robustdistill.errors import BadInput, GateRefused, OutOfTime, RobustDistillError, ServiceFailed, ServiceRefused
from robustdistill.gate.verdict import Verdict
from robustdistill.services import dvc_cli
from robustdistill.services.mlflow_store import Store
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


def test_a_plan_only_says_what_would_run(root: Path, stages: Stages) -> None:
    result = retrain.retrain(str(root), plan=True)
    assert (result["outcome"], result["exit_code"]) == ("plan", 0) and "prepare" in result["sentence"]
    assert stages.done == []


@pytest.fixture
def decided(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the flow did after the stages; nothing of it is done."""
    done: list[str] = []
    passed = Verdict("pass", "0" * 64, [], None, {})
    told = decide.Decision("dry run", "would be promoted", passed.to_json(), [])
    monkeypatch.setattr(decide, "require_worthy_teacher", lambda workspace: None)
    for name, result in (
        ("judge_references", None), ("registered", "a version"), ("judge_student", passed), ("settle", told),
        ("foreseen", told),
    ):  # fmt: skip
        monkeypatch.setattr(decide, name, lambda *_, name=name, result=result: (done.append(name), result)[1])
    monkeypatch.setattr(retrain.version, "commit", lambda workspace, run: done.append("commit"))
    return done


def test_a_dry_run_does_all_but_register_and_promote(root: Path, stages: Stages, decided: list[str]) -> None:
    result = retrain.retrain(str(root), dry_run=True)
    assert (result["outcome"], result["exit_code"]) == ("dry run", 0)
    assert set(stages.done) == set(STAGES)
    assert decided == ["judge_references", "judge_student", "foreseen", "commit"]
    assert _recorded(root).tags["robustdistill.dry_run"] == "true"
    decided.clear()
    retrain.retrain(str(root))
    assert decided == ["registered", "judge_student", "settle", "commit"]
    assert "robustdistill.dry_run" not in _recorded(root).tags


def _recorded(root: Path) -> Any:
    """The last flow run in MLflow."""
    store = Store.open(None, root / ".work")
    return store.runs(store.experiment("digits"), tags={"robustdistill.recipe": "digits"})[0]


@pytest.mark.parametrize("last", ["student", "score@student"])
def test_a_run_out_of_time_registers_nothing(root: Path, stages: Stages, decided: list[str], last: str) -> None:
    stages.failures[last] = [OutOfTime(f"{last}: stopped at step 7 of 9, which is kept", fix="start it again")]
    state = retrain.retrain(str(root), max_minutes=5, return_state=True)
    result = state.result()
    assert state.is_completed() and state.name == "Out Of Time"
    assert (result["outcome"], result["exit_code"]) == ("out of time", 75)
    assert f"the budget of 5 minutes was spent: {last}: stopped at step 7 of 9" in result["sentence"]
    assert {row["withheld"] for row in result["stages"]} == {"out of time"}  # these stages write no journal
    assert decided == [] and budget.VARIABLE not in os.environ
    run = _recorded(root)
    assert (run.status, run.tags["robustdistill.outcome"]) == ("KILLED", "out of time")


def test_a_budget_spent_before_the_gate_stops_there(
    root: Path, stages: Stages, decided: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "spent", lambda: "judge_references" in decided)
    result = retrain.retrain(str(root), max_minutes=5)
    assert result["outcome"] == "out of time" and "stopped before the gate" in result["sentence"]
    assert decided == ["judge_references"]


def test_what_is_registered_is_decided_on(
    root: Path, stages: Stages, decided: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[float] = []
    monkeypatch.setattr(decide, "registered", lambda _: left.append(budget.left()))
    assert retrain.retrain(str(root), max_minutes=5)["outcome"] == "dry run"
    assert left == [float("inf")] and decided[-2:] == ["settle", "commit"]


@pytest.mark.parametrize(
    ("given", "where"), [({"plan": True, "dry_run": True}, "--plan, --dry-run"), ({"max_minutes": 0}, "--max-minutes")]
)
def test_wishes_that_make_no_sense_are_refused(root: Path, stages: Stages, given: dict[str, Any], where: str) -> None:
    with pytest.raises(BadInput) as caught:
        retrain.retrain(str(root), **given)
    assert caught.value.where == where and stages.done == []


def test_a_warm_start_waits_until_the_registry_is_mended(
    root: Path, stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The champion is another one before a promotion that a crash cut short has been completed."""
    done: list[str] = []

    def mend(current: Any, **_: Any) -> list[str]:
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


def test_an_event_about_data_that_others_followed_ends_as_superseded(root: Path, stages: Stages) -> None:
    """They were added and followed by those of today before any run committed them."""
    workspace, now = Workspace(root), dvc_cli.digest(root)
    earlier = "1" * 32 + ".dir"
    data_news.leave(workspace, earlier, "| class |")
    state = retrain.retrain(str(root), data_digest=earlier, return_state=True)
    data_news.told(workspace)
    assert state.is_completed() and state.name == "Superseded"
    result = state.result()
    assert (result["outcome"], result["exit_code"]) == ("superseded", 2) and stages.done == []
    assert str(now) in result["sentence"] and f"data use {earlier}" in dict(result["pointers"])["next"]


def test_reports_of_changed_data_are_shown_by_one_run(
    root: Path, stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decide, "require_worthy_teacher", _refuse)
    shown: list[str] = []
    monkeypatch.setattr(retrain, "create_markdown_artifact", lambda text, **_: shown.append(text))
    data_news.leave(Workspace(root), "digest", "| class |")
    text = data_news.waiting(Workspace(root))
    retrain.retrain(str(root), plan=True)
    assert shown == [text] and data_news.waiting(Workspace(root)) == text
    retrain.retrain(str(root))
    assert shown == [text, text] and data_news.waiting(Workspace(root)) == ""
    retrain.retrain(str(root))
    assert shown == [text, text]
