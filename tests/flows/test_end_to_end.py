"""The whole job as a user runs it, in order, on one workspace: each test goes on where the one before stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import scenario
from PIL import Image

from robustdistill.services import prefect_home
from robustdistill.workspace import Workspace

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenario.make(tmp_path_factory.mktemp("end_to_end") / "digits")


@pytest.fixture(scope="module")
def fresh(root: Path) -> Path:
    """A copy of the workspace as it was before anything ran."""
    copy = root.parent / "repro_only"
    shutil.copytree(root, copy, symlinks=True)
    return copy


def test_the_first_run_promotes(root: Path, fresh: Path) -> None:
    result = scenario.flow("retrain", root, "--reason", "first")
    assert result["outcome"] == "promoted"
    assert all(stage["ran"] for stage in result["stages"])
    assert [model["name"] for model in result["models"]] == ["initial", "teacher", "control", "student"]
    report = Path(dict(result["pointers"])["report"])
    assert "<html" in report.read_text() and 'src="http' not in report.read_text()
    assert scenario.call("git", "status", "--porcelain", cwd=root).stdout == ""


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


def test_changed_data_lead_to_a_challenger(root: Path, tmp_path: Path) -> None:
    x, y = (
        np.concatenate([np.load(root / "data" / f"{split}_{part}.npy") for split in ("train", "test")]) for part in "xy"
    )
    np.savez(tmp_path / "fewer.npz", images=np.moveaxis(x, 1, -1)[:-20], labels=y[:-20])
    report = scenario.robustdistill(root, "data", "add", tmp_path / "fewer.npz")
    assert report["changed"]
    result = scenario.flow("retrain", root)
    assert result["outcome"] == "promoted"
    rules = {rule["rule"]: rule["status"] for rule in result["verdict"]["rules"]}
    assert rules["champion_robust"] == "pass"  # judged again on today's test set, not "not applicable"


def _wait_for(root: Path, stage: str, event: str, since: float, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        lines = (root / "journal.jsonl").read_text().splitlines()
        found = [json.loads(line) for line in lines if line.endswith("}")]
        if any(line["stage"] == stage and line["event"] == event and line["t"] > since for line in found):
            return
        time.sleep(0.05)
    raise AssertionError(f"{stage} never said {event}")


def test_a_workspace_in_use_is_refused(root: Path) -> None:
    with Workspace.find(root).lock():
        error = scenario.flow("retrain", root, expect=2)["error"]
    assert f"locked by another run (pid {os.getpid()})" in error["cause"] and error["kind"] == "bad_input"


def test_a_killed_run_leaves_no_orphan_and_goes_on(root: Path) -> None:
    scenario.edit(root / "params.yaml", {"student.training.epochs": 12})
    since = time.time()
    command = [sys.executable, str(scenario.ROOT / "flows" / "retrain.py"), "--workspace", str(root)]
    process = subprocess.Popen(command, env=scenario.environment(), stderr=subprocess.DEVNULL, start_new_session=True)
    _wait_for(root, "student", "epoch", since)
    children = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs([child for child in children if "stage" in " ".join(_line(child))], timeout=15)
    assert not alive
    result = scenario.flow("retrain", root)
    assert result["outcome"] == "promoted"
    assert {stage["name"] for stage in result["stages"] if stage["ran"]} >= {"student", "score@student"}
    assert _running(root) == []
    assert prefect_home.end_orphans(root / ".work" / "prefect") == 0  # the killed flow's server has been ended


def _line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


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
    before = {row["version"] for row in scenario.robustdistill(root, "versions") if "champion" in row["aliases"]}
    result = scenario.flow("promote", root, "--rollback", "--by", "a test", "--why", "to see it move")
    after = {row["version"] for row in scenario.robustdistill(root, "versions") if "champion" in row["aliases"]}
    assert before != after and len(after) == 1
    assert "champion" in result["registry"][0]


def test_the_champion_is_judged_again(root: Path) -> None:
    result = scenario.flow("rescore", root)
    assert result["outcome"] == "unchanged"
    assert {rule["rule"] for rule in result["verdict"]["rules"]} >= {"health", "robust", "best_robust"}
