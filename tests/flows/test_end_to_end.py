"""The whole job as a user runs it, in order, on one workspace: each test goes on where the one before stopped."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import running
import scenario
from PIL import Image

from robustdistill.actions import data
from robustdistill.actions.decide import TEACHER
from robustdistill.actions.register import SHA
from robustdistill.models import weights
from robustdistill.services import dvc_cli, prefect_home
from robustdistill.stages.catalog import STAGES
from robustdistill.workspace import Workspace

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(new: Path, copied: Callable[[Path], Path]) -> Path:
    return copied(new)


@pytest.fixture(scope="module")
def fresh(new: Path, copied: Callable[[Path], Path]) -> Path:
    """Another copy, for DVC without a flow."""
    return copied(new)


def test_the_first_run_promotes(root: Path) -> None:
    result = scenario.flow("retrain", root, "--reason", "first")
    assert result["outcome"] == "promoted"
    assert all(stage["ran"] for stage in result["stages"])
    assert [model["name"] for model in result["models"]] == ["initial", "teacher", "control", "student"]
    report = Path(dict(result["pointers"])["report"])
    assert "<html" in report.read_text() and 'src="http' not in report.read_text()
    assert scenario.call("git", "status", "--porcelain", cwd=root).stdout == ""
    commit = scenario.call("git", "rev-parse", "HEAD", cwd=root).stdout[:12]
    assert f"git checkout {commit} " in report.read_text()  # the commit that holds this run's dvc.lock


def test_dvc_has_nothing_to_do_after_it(root: Path) -> None:
    dvc = [sys.executable, "-m", "dvc"]
    before = scenario.hashes(root)
    said = scenario.call(*dvc, "repro", cwd=root).stdout
    assert "Data and pipelines are up to date" in said
    assert scenario.hashes(root) == before
    assert "robust" in scenario.call(*dvc, "metrics", "show", cwd=root).stdout
    assert "teacher" in scenario.call(*dvc, "dag", cwd=root).stdout
    scenario.call(*dvc, "plots", "show", "--out", root / ".work" / "plots", cwd=root)


def test_dvc_alone_makes_the_same_models(root: Path, fresh: Path) -> None:
    scenario.call(sys.executable, "-m", "dvc", "repro", cwd=fresh)
    assert scenario.hashes(fresh) == scenario.hashes(root)


def test_a_dvc_experiment_sets_any_option(fresh: Path) -> None:
    before = scenario.hashes(fresh)
    scenario.call(sys.executable, "-m", "dvc", "exp", "run", "-S", "student.objective.weight=0.5", cwd=fresh)
    after = scenario.hashes(fresh)
    assert {stage for stage in after if after[stage] != before[stage]} == {"student", "export@student", "score@student"}
    assert "weight" in scenario.call(sys.executable, "-m", "dvc", "params", "diff", cwd=fresh).stdout


def test_an_unchanged_workspace_retrains_nothing(root: Path) -> None:
    result = scenario.flow("retrain", root)
    assert result["outcome"] == "unchanged"
    assert not any(stage["ran"] for stage in result["stages"])
    assert len(scenario.robustdistill(root, "versions")) == 2  # one candidate, one promoted


def test_the_champion_answers(root: Path, tmp_path: Path) -> None:
    x, y = np.load(root / "data" / "train_x.npy"), np.load(root / "data" / "train_y.npy")
    Image.fromarray(x[0].reshape(8, 8)).save(tmp_path / "digit.png")
    [answer] = scenario.robustdistill(root, "predict", tmp_path / "digit.png")
    assert set(answer["probabilities"]) == {str(digit) for digit in range(10)}
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    assert 0 <= int(y[0]) <= 9


def test_a_stricter_policy_refuses_and_moves_nothing(root: Path) -> None:
    kept = (root / "policy.yaml").read_text()
    scenario.edit(root / "policy.yaml", {"student.robust": 1.0})
    result = scenario.flow("retrain", root, expect=1)
    assert result["outcome"] == "refused"
    assert not any(stage["ran"] for stage in result["stages"])
    (root / "policy.yaml").write_text(kept)


@pytest.fixture(scope="module")
def by_hand(root: Path) -> dict[str, Any]:
    """A flow after somebody took images out, put some in twice and made all brighter; the teacher may start warm."""
    for split, fewer, twice in (("train", 20, 5), ("test", 10, 0)):
        x, y = (np.load(root / "data" / f"{split}_{part}.npy")[fewer:] for part in "xy")
        x = np.minimum(x.astype(int) + 60, 255).astype(np.uint8)
        np.save(root / "data" / f"{split}_x.npy", np.concatenate([x, x[:twice]]))
        np.save(root / "data" / f"{split}_y.npy", np.concatenate([y, y[:twice]]))
    scenario.edit(root / "params.yaml", {"teacher.warm_start": "champion"})
    before = scenario.read(root, "artifacts", "prepare", "manifest.json")
    return scenario.flow("retrain", root) | {"before": before}


def test_files_put_there_by_hand_are_versioned_in_a_step_with_a_report(root: Path, by_hand: dict[str, Any]) -> None:
    digest = data.tree_digest(root / "data")
    assert dvc_cli.digest(root) == digest
    assert digest in scenario.call("git", "show", "HEAD:data.dvc", cwd=root).stdout
    assert scenario.call("git", "status", "--porcelain", cwd=root).stdout == ""
    task, text = _reported(root)
    assert task.startswith("version data")
    before, after = by_hand["before"]["counts"], scenario.read(root, "artifacts", "prepare", "manifest.json")["counts"]
    for label in range(10):
        [row] = [line for line in text.splitlines() if line.startswith(f"| {label} |")]
        for split, cell in zip(("train", "val", "test"), row.strip("| ").split("|")[1:], strict=True):
            was, now = before[split][label], after[split][label]
            assert cell.strip() == (str(now) if was == now else f"{now} ({now - was:+d})")
    assert sum(after["test"]) == sum(before["test"]) - 10
    assert "5 duplicates" in text and "(notable)" in text


def _reported(root: Path) -> tuple[str, str]:
    """The task that last reported what changed in the data, and what it said, from Prefect's own records."""
    query = (
        "select task_run.name, data from artifact join task_run on task_run_id = task_run.id where key = ? "
        "order by artifact.created desc limit 1"
    )
    with closing(sqlite3.connect(root / ".work" / "prefect" / "prefect.db")) as records:
        [(task, text)] = records.execute(query, ("data-changes",)).fetchall()
    return task, json.loads(text)


def test_what_reads_the_data_is_retrained_and_judged_beside_the_champion(root: Path, by_hand: dict[str, Any]) -> None:
    assert by_hand["outcome"] == "promoted"
    assert scenario.ran(by_hand) == set(STAGES)
    rules = scenario.rules(by_hand)
    assert rules["champion_robust"] == rules["champion_clean"] == "pass"  # not "not applicable"
    today = scenario.read(root, "artifacts", "score", "student", "scorecard.json")
    [again] = [scenario.read(path) for path in (root / ".work" / "rescored").glob("*/scorecard.json")]
    registry = scenario.registry(root)
    assert again["subject"]["onnx_sha256"] == registry.version("digits", 1).tags[SHA]
    assert again["sample"]["digest"] == today["sample"]["digest"]
    assert registry.aliases("digits") == {"champion": 2, "previous": 1}


def test_a_warm_start_begins_from_the_teacher_of_the_champion(
    root: Path, by_hand: dict[str, Any], tmp_path: Path
) -> None:
    registry, workspace = scenario.registry(root), Workspace.find(root)
    first = registry.version("digits", 1).tags[TEACHER]
    pin = scenario.read(workspace.pin)
    assert (pin["sha256"], pin["role"], pin["origin"]) == (first, "start", "the champion's teacher")
    seen, teachers = (
        np.load(root / "artifacts" / "export" / name / "trained_on.npy") for name in ("student", "teacher")
    )
    before = np.load(workspace.imports / first / f"{pin['trained_on']}.npy")
    assert set(before) <= set(teachers) <= set(seen)
    assert f"the teacher begins from the champion's teacher, {first[:12]}" in workspace.journal.read_text()
    trained = weights.digest(root / "artifacts" / "teacher" / "model.safetensors")
    warm = workspace.params()
    cold = warm.model_copy(update={"teacher": warm.teacher.model_copy(update={"warm_start": "none"})})
    again, drawn = (
        weights.digest(scenario.compute(workspace, "teacher", tmp_path / name, params) / "model.safetensors")
        for name, params in (("warm", warm), ("cold", cold))
    )
    assert trained == again != drawn
    assert registry.version("digits", 2).tags[TEACHER] == trained != first


def test_a_workspace_in_use_is_refused(root: Path) -> None:
    with Workspace.find(root).lock():
        error = scenario.flow("retrain", root, expect=2)["error"]
    assert f"locked by another run (pid {os.getpid()})" in error["cause"] and error["kind"] == "bad_input"


def test_ctrl_c_ends_a_training_and_leaves_nothing_behind(root: Path) -> None:
    scenario.edit(root / "params.yaml", {"student.training.epochs": 40})
    flow = running.start(root)
    running.wait_until(lambda: running.has_checkpoint(root, "student"), flow, "no checkpoint")
    family = running.descendants(flow)
    assert any("stage student" in " ".join(process.cmdline()) for process in family)
    os.killpg(flow.pid, signal.SIGINT)  # the terminal sends it to the whole group
    assert flow.wait(15) == 130
    assert running.alive(family, seconds=2) == []
    with Workspace.find(root).lock():
        assert running.has_checkpoint(root, "student")


def test_a_killed_run_leaves_no_orphan_and_goes_on(root: Path) -> None:
    since = time.time()
    flow = running.start(root)
    running.wait_until(lambda: running.said(root, "student", "resumed", since), flow, "not resumed after Ctrl-C")
    stages = running.descendants(flow, "stage")
    os.kill(flow.pid, signal.SIGKILL)
    flow.wait()
    assert running.alive(stages, seconds=15) == []
    since = time.time()
    result = scenario.flow("retrain", root)
    assert result["outcome"] == "promoted"
    assert running.said(root, "student", "resumed", since)
    assert {stage["name"] for stage in result["stages"] if stage["ran"]} >= {"student", "score@student"}
    assert _running(root) == []
    assert prefect_home.end_orphans(root / ".work" / "prefect") == 0  # the killed flow's server has been ended


def _running(root: Path) -> list[str]:
    """MLflow runs that claim to be running."""
    from robustdistill.services.mlflow_store import Store

    store = Store.open(None, root / ".work")
    return [run.id for run in store.runs(store.experiment("digits"), status="RUNNING")]


def test_a_candidate_is_promoted_by_hand(root: Path) -> None:
    result = scenario.flow("promote", root, "--version", "1", "--by", "a test", "--why", "the first was better")
    assert result["outcome"] == "promoted"
    assert {rule["rule"]: rule["status"] for rule in result["verdict"]["rules"]}["champion_robust"] == "pass"


def test_a_rollback_moves_the_champion_back(root: Path) -> None:
    """Also where the policy is one that no training would begin with."""
    policy = root / "policy.yaml"
    kept = policy.read_text()
    scenario.edit(policy, {"waivers": [{"rule": "luck", "by": "me", "why": "none"}]})
    assert "unknown rule in a waiver 'luck'" in scenario.flow("retrain", root, expect=2)["error"]["cause"]
    before = {row["version"] for row in scenario.robustdistill(root, "versions") if "champion" in row["aliases"]}
    result = scenario.flow("promote", root, "--rollback", "--by", "a test", "--why", "to see it move")
    after = {row["version"] for row in scenario.robustdistill(root, "versions") if "champion" in row["aliases"]}
    assert before != after and len(after) == 1
    assert "champion" in result["registry"][0]
    policy.write_text(kept)


def test_the_champion_is_judged_again(root: Path) -> None:
    result = scenario.flow("rescore", root)
    assert result["outcome"] == "unchanged"
    assert {rule["rule"] for rule in result["verdict"]["rules"]} >= {"health", "robust", "best_robust"}
