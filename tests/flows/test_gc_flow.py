"""After gc on a promoted workspace everything that was promised still works."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scenario
from PIL import Image

from robustdistill.services.mlflow_bin import Bin
from robustdistill.services.mlflow_store import Store

pytestmark = pytest.mark.slow

ALL_OLD = ("--keep-runs", "0", "--older-than", "0h")


@pytest.fixture(scope="module")
def root(finished: Path, copied: Callable[[Path], Path]) -> Path:
    """Two champions, one after the other; then all that may go has gone, its room too."""
    root = copied(finished)
    assert scenario.flow("retrain", root, "--reason", "first")["outcome"] == "promoted"
    scenario.edit(root / "params.yaml", {"student.training.lr": 0.01})
    assert scenario.flow("retrain", root, "--reason", "second")["outcome"] == "promoted"
    assert scenario.flow("retrain", root, "--reason", "nothing new")["outcome"] == "unchanged"
    return root


@pytest.fixture(scope="module")
def before(root: Path) -> list[dict[str, Any]]:
    return list(scenario.robustdistill(root, "versions"))


@pytest.fixture(scope="module")
def done(root: Path, before: list[dict[str, Any]]) -> dict[str, Any]:
    shown = scenario.robustdistill(root, "gc", *ALL_OLD, "--purge")
    assert not shown["applied"] and scenario.robustdistill(root, "versions") == before
    result: dict[str, Any] = scenario.robustdistill(root, "gc", *ALL_OLD, "--apply", "--purge")
    counted = {row["kind"]: row["count"] for row in shown["kinds"]}
    assert {row["kind"]: row["count"] for row in result["kinds"]} == counted
    return result


def test_only_the_run_that_nothing_names_went(root: Path, done: dict[str, Any]) -> None:
    kinds = {row["kind"]: row["count"] for row in done["kinds"]}
    assert "candidates" not in kinds and "models" not in kinds
    stored = Bin(Store.open(None, root / ".work"))
    experiment = stored.experiment("digits")
    assert experiment
    reasons = {run.tags["robustdistill.reason"] for run in stored.runs(experiment)}
    assert reasons == {"first", "second"}
    assert stored.runs(experiment, binned=True) == []


def test_all_versions_are_there(root: Path, before: list[dict[str, Any]], done: dict[str, Any]) -> None:
    assert scenario.robustdistill(root, "versions") == before
    registry = scenario.registry(root)
    for row in before:
        place = registry.download(
            row["name"], row["version"], root / ".work" / "back" / row["name"] / str(row["version"])
        )
        assert (place / "model.onnx").is_file()


def test_results_of_both_champions_can_be_had_again(root: Path, done: dict[str, Any]) -> None:
    """By the commits of their runs, from DVC's cache alone."""
    stored = Bin(Store.open(None, root / ".work"))
    experiment = stored.experiment("digits")
    assert experiment
    commits = {run.tags.get("robustdistill.result_commit", "") for run in stored.runs(experiment)} - {""}
    assert len(commits) == 2
    for commit in commits:
        copy = root.parent / commit[:8]
        scenario.call("git", "clone", "--quiet", root, copy)
        scenario.call("git", "checkout", "--quiet", commit, cwd=copy)
        dvc = [sys.executable, "-m", "dvc"]
        scenario.call(*dvc, "cache", "dir", "--local", root / ".dvc" / "cache", cwd=copy)
        scenario.call(*dvc, "checkout", "--quiet", cwd=copy)
        assert (copy / "artifacts" / "export" / "student" / "model.onnx").is_file()


def test_a_second_retrain_has_nothing_to_do(root: Path, done: dict[str, Any]) -> None:
    result = scenario.flow("retrain", root)
    assert result["outcome"] == "unchanged" and scenario.ran(result) == set()


def test_the_champion_answers_and_there_is_a_way_back(root: Path, done: dict[str, Any], tmp_path: Path) -> None:
    x = np.load(root / "data" / "train_x.npy")
    Image.fromarray(x[0].reshape(8, 8)).save(tmp_path / "digit.png")
    assert len(scenario.robustdistill(root, "predict", tmp_path / "digit.png")) == 1
    assert scenario.robustdistill(root, "rollback", "--why", "try", "--by", "test")["outcome"] == "promoted"
    assert scenario.registry(root).aliases("digits") == {"champion": 1, "previous": 2}
    assert len(scenario.robustdistill(root, "predict", tmp_path / "digit.png")) == 1


def test_a_second_gc_finds_nothing_more_in_the_cache(root: Path, done: dict[str, Any]) -> None:
    again = scenario.robustdistill(root, "gc", "--keep-runs", "5", "--older-than", "0h")
    assert {"DVC cache", "candidates", "models"}.isdisjoint(row["kind"] for row in again["kinds"])
