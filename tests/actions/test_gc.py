"""What gc leaves in the registry and the records, on a real store; killed in between; and its answer."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from robustdistill import recipes
from robustdistill.actions import gc, intent, promote
from robustdistill.actions.gc import cache, kept, records
from robustdistill.actions.gc.item import Policy, seconds
from robustdistill.actions.intent import HELD, Intent
from robustdistill.actions.mirror import RUN, STAGE
from robustdistill.actions.register import register
from robustdistill.cli import main
from robustdistill.errors import BadInput
from robustdistill.services.mlflow_bin import Bin
from robustdistill.services.mlflow_store import Store
from robustdistill.workspace import Workspace

NOW = time.time()
ALL_OLD = Policy(0, NOW + 3600)
COMMIT = "robustdistill.git_commit"


@pytest.fixture
def workspace(work: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    recipes.write(recipes.load("digits", model_name="toy"), work.parent)
    return Workspace(work.parent)


@pytest.fixture
def flow_run(store: Store, make_student: Callable[..., tuple[Path, Path]]) -> Callable[..., tuple[str, int]]:
    """flow_run(name, scale) -> (MLflow id, version of toy-candidates) of a flow run with a stage and a student."""

    def make(name: str, scale: float, status: str = "FINISHED", stage: str = "student") -> tuple[str, int]:
        experiment = store.experiment("toy")
        began = NOW - 1000 + scale
        tags = {RUN: name, COMMIT: f"commit of {name}"}
        parent = store.create_run(experiment, "retrain", started=began, tags=tags)
        child = store.create_run(experiment, stage, started=began, tags={RUN: name, STAGE: stage}, parent=parent)
        export, score = make_student(scale)
        made = register(store, "toy", export=export, scorecard=score, parent_run=parent, tags={}, description="")
        store.log_files(parent, {"report": [score / "scorecard.json"]})
        store.status(child, "FINISHED", ended=began + 0.1)
        store.status(parent, status, ended=began + 0.2)
        return parent, made.version

    return make


def _promote(store: Store, version: int, run: str, work: Path) -> int:
    passed = {"verdict": "pass"}
    return promote.promote(store, "toy", version, verdict=passed, record={"run": run}, by="me", work=work).version


def _apply(items: list[Any]) -> list[Any]:
    return [item.remove() for item in items]


def _flow_runs(store: Store) -> set[str]:
    stored = Bin(store)
    return {run.tags[RUN] for run in stored.runs(stored.experiment("toy") or "") if RUN in run.tags}


def _candidates(store: Store) -> set[int]:
    return {version.number for version in store.registry.versions("toy-candidates")}


def test_what_nothing_names_goes_and_all_else_stays(
    workspace: Workspace, store: Store, work: Path, flow_run: Callable[..., tuple[str, int]]
) -> None:
    _, first = flow_run("promoted", 1.0)
    _, second = flow_run("promoted later", 2.0)
    _, waiting = flow_run("waits", 3.0)
    _, refused = flow_run("refused", 4.0)
    flow_run("running", 5.0, status="RUNNING")
    _, under_way = flow_run("under way", 6.0)
    for version, run in ((first, "promoted"), (second, "promoted later")):
        _promote(store, version, run, work)
    promote.challenger(store, "toy", waiting)
    plan = Intent.new("promotion", "toy", store.registry, by="another", candidate=under_way)
    store.registry.tag_model("toy", intent.TAG, plan.dumps())
    foreign = store.create_run(store.experiment("toy"), "by hand", started=1.0, tags={})

    found = records.find(workspace, ALL_OLD, purge=False)
    assert [(item.kind, item.count) for item in found.items] == [("candidates", 1), ("models", 1), ("runs", 2)]
    assert found.items[2].name == "refused" and all(item.size for item in found.items[1:])
    assert "commit of refused" not in found.commits and "commit of promoted" in found.commits
    assert _candidates(store) == {*range(1, 7)}  # nothing has gone yet

    assert _apply(found.items) == [True, True, True]
    assert _candidates(store) == {1, 2, 3, 5, 6} and refused == 4
    assert _flow_runs(store) == {"promoted", "promoted later", "waits", "running", "under way"}
    assert store.client.get_run(foreign).info.lifecycle_stage == "active"
    store.registry.tag_model("toy", intent.TAG, None)
    for number in (1, 2):
        intent.smoke_test(store, "toy", number)
    assert promote.rollback(store, "toy", None, by="me", why="test", work=work).version == 1
    now = records.find(workspace, ALL_OLD, purge=False).items
    assert {item.name for item in now if item.kind == "runs"} == {"under way"}  # nothing names it any more


def test_age_and_number_both_count(
    workspace: Workspace, store: Store, flow_run: Callable[..., tuple[str, int]]
) -> None:
    for number in range(3):
        flow_run(f"run {number}", float(number + 1))

    def gone(policy: Policy) -> set[str]:
        return {item.name for item in records.find(workspace, policy, purge=False).items if item.kind == "runs"}

    assert gone(Policy(1, NOW + 3600)) == {"run 0", "run 1"}
    assert gone(Policy(3, NOW + 3600)) == set()
    assert gone(Policy(0, NOW - 2000)) == set()


def test_the_present_student_the_newest_teacher_and_runs_not_told_stay(
    workspace: Workspace, store: Store, flow_run: Callable[..., tuple[str, int]], make_student: Callable[..., Any]
) -> None:
    flow_run("present", 1.0)
    flow_run("teacher", 2.0, stage="teacher")
    flow_run("not told", 3.0)
    export, _ = make_student(1.0)
    shutil.copytree(export, workspace.out("export@student"))
    (workspace.work / "mirror.json").write_text(json.dumps({"offset": 0, "runs": {"not told": {}}}))
    assert kept.untold(workspace) == {"not told"}
    assert records.find(workspace, ALL_OLD, purge=False).items == []


def test_killed_after_any_step_the_next_one_goes_on(
    workspace: Workspace, store: Store, work: Path, flow_run: Callable[..., tuple[str, int]]
) -> None:
    flow_run("old", 1.0)
    _, version = flow_run("promoted", 2.0)
    _promote(store, version, "promoted", work)
    kinds = ["candidates", "models", "runs", "emptied from the bin"]
    for step, kind in enumerate(kinds):
        items = records.find(workspace, ALL_OLD, purge=True).items
        assert [item.kind for item in items] == kinds[step:]
        items[0].remove()
        if kind == "runs":  # cut off between the two runs of a family: brought back, one of them
            stored = Bin(store)
            run = next(each for each in stored.runs(stored.experiment("toy") or "", binned=True) if STAGE in each.tags)
            store.client.restore_run(run.id)
            [item] = [each for each in records.find(workspace, ALL_OLD, purge=False).items if each.kind == "runs"]
            assert item.count == 1 and item.remove()
    assert records.find(workspace, ALL_OLD, purge=True).items == []
    intent.smoke_test(store, "toy", 1)


def test_the_bin_is_emptied_of_ours_alone_and_frees_room(
    workspace: Workspace, store: Store, work: Path, flow_run: Callable[..., tuple[str, int]]
) -> None:
    old, _ = flow_run("old", 1.0)
    _, version = flow_run("promoted", 2.0)
    _promote(store, version, "promoted", work)
    theirs = store.create_run(store.experiment("toy"), "theirs", started=1.0, tags={})
    store.client.delete_run(theirs)
    files = {path for path in (work / "mlartifacts").rglob("*") if path.is_file()}
    _apply(records.find(workspace, ALL_OLD, purge=False).items)
    assert {path for path in (work / "mlartifacts").rglob("*") if path.is_file()} == files  # the bin holds all
    [emptied] = records.find(workspace, ALL_OLD, purge=True).items
    emptied.remove()
    left = {path for path in (work / "mlartifacts").rglob("*") if path.is_file()}
    assert left < files and not [path for path in left if old in path.parts]
    assert store.client.get_run(theirs).info.lifecycle_stage == "deleted"
    intent.smoke_test(store, "toy", 1)


def test_what_is_promoted_meanwhile_stays(
    workspace: Workspace, store: Store, work: Path, flow_run: Callable[..., tuple[str, int]]
) -> None:
    _, version = flow_run("old", 1.0)
    items = records.find(workspace, ALL_OLD, purge=True).items
    _promote(store, version, "old", work)  # from another machine, after we have looked
    assert _apply(items)[:3] == [False, False, False]
    assert _candidates(store) == {version} and _flow_runs(store) == {"old"}
    intent.smoke_test(store, "toy", 1)


def test_another_mlflow_is_not_taken_for_an_empty_one(workspace: Workspace, work: Path) -> None:
    (work / HELD).write_text(json.dumps({"name": "toy", "version": 1}))
    with pytest.raises(BadInput, match="does not know the runs"):
        records.find(workspace, ALL_OLD, purge=False)
    (work / "mlflow.db").unlink()
    with pytest.raises(BadInput, match="does not know the runs"):
        records.find(workspace, ALL_OLD, purge=False)
    assert not (work / "mlflow.db").exists()


def test_a_clients_purge_of_a_server_is_refused(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bin, "can_empty", False)
    with pytest.raises(BadInput, match="client of MLflow's server") as caught:
        records.find(workspace, ALL_OLD, purge=True)
    assert "mlflow gc --backend-store-uri" in caught.value.fix


def test_ages() -> None:
    assert [seconds(text) for text in ("12h", "30d", "2w", "0d")] == [43200, 2592000, 1209600, 0]
    for text in ("", "30", "d", "-3d", "3 days"):
        with pytest.raises(BadInput):
            seconds(text)


def test_a_run_that_holds_the_workspace_is_not_disturbed(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    with workspace.lock(), pytest.raises(SystemExit, match="2"):
        main(["--workspace", str(workspace.root), "gc", "--json"])
    assert "locked by another run" in json.loads(capsys.readouterr().out)["error"]["cause"]


def test_the_answer_is_a_table_by_kind(
    workspace: Workspace,
    flow_run: Callable[..., tuple[str, int]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flow_run("old", 1.0)
    monkeypatch.setattr(cache, "find", lambda *_, **__: [])
    monkeypatch.setattr("robustdistill.services.git_history.pins", lambda _: [])
    monkeypatch.setattr(gc.time, "time", lambda: NOW + 3600)
    for options in ([], ["--apply"]):
        with pytest.raises(SystemExit, match="0"):
            main(["--workspace", str(workspace.root), "gc", "--keep-runs", "0", "--older-than", "0h", *options])
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].split() == ["what", "how", "many", "room"]
        assert [line.split()[:2] for line in lines[1:4]] == [["candidates", "1"], ["models", "1"], ["runs", "2"]]
        assert ("next: the same with --apply" in lines) == (not options)
    assert not _flow_runs(Store.open(None, workspace.work))
