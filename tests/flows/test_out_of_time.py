"""A dry run and a run out of time on real stages: nothing is moved, nothing is lost, the next run goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import running
import scenario

from robustdistill import budget
from robustdistill.errors import OutOfTime
from robustdistill.services import dvc_cli
from robustdistill.workspace import Workspace

pytestmark = pytest.mark.slow
LATER = {"student", "control"} | {f"{what}@{who}" for what in ("export", "score") for who in ("student", "control")}


@pytest.fixture(scope="module")
def root(finished: Path, copied: Callable[[Path], Path]) -> Path:
    """All stages are up to date but student and control, which train for longer, and what reads from them."""
    root = copied(finished)
    scenario.edit(root / "params.yaml", {"student.training.epochs": 3})
    return root


def test_a_run_whose_time_is_over_begins_no_stage_and_registers_nothing(root: Path) -> None:
    result = scenario.flow("retrain", root, "--max-minutes", "0.001", expect=75)
    assert result["outcome"] == "out of time" and "was not begun" in result["sentence"]
    assert {stage["name"] for stage in result["stages"] if stage["withheld"]} == LATER
    assert scenario.ran(result) == set()
    assert scenario.registry(root).versions("digits-candidates") == []
    assert scenario.call("git", "log", "--oneline", cwd=root).stdout.count("\n") == 1  # nothing was committed


def test_a_stage_out_of_time_stops_at_a_checkpoint_and_leaves_no_process(root: Path) -> None:
    """Its time is over when it begins: it keeps its first step."""
    before = {process.pid for process in psutil.process_iter()}
    with pytest.raises(OutOfTime, match="student: stopped at step 1 of"):
        dvc_cli.repro(root, "student", {budget.VARIABLE: repr(time.monotonic())})
    assert running.has_checkpoint(root, "student")
    assert not [process for process in psutil.process_iter() if process.pid not in before and _of(process, root)]
    assert set(dvc_cli.changed(root)) == LATER


def test_the_next_run_goes_on_to_the_same_bytes_and_a_dry_one_moves_nothing(root: Path, tmp_path: Path) -> None:
    began = time.time()
    dry = scenario.flow("retrain", root, "--dry-run")
    assert running.said(root, "student", "resumed", began)
    assert scenario.ran(dry) == LATER
    whole = scenario.compute(Workspace.find(root), "student", tmp_path / "whole")
    for name in ("model.safetensors", "last.safetensors", "history.csv"):
        assert (root / "artifacts" / "student" / name).read_bytes() == (whole / name).read_bytes()
    assert (dry["outcome"], dry["exit_code"]) == ("dry run", 0)
    assert dry["sentence"] == "this student passed and would be promoted; digits still has no champion"


def _of(process: psutil.Process, root: Path) -> bool:
    try:
        return str(root) in " ".join([*process.cmdline(), process.cwd()])
    except psutil.Error:
        return False


def test_after_a_dry_run_a_real_one_trains_nothing_and_promotes(root: Path) -> None:
    registry = scenario.registry(root)
    assert registry.versions("digits-candidates") == [] == registry.versions("digits")
    assert scenario.call("git", "status", "--porcelain", cwd=root).stdout == ""
    result = scenario.flow("retrain", root)
    assert scenario.ran(result) == set()
    assert (result["outcome"], registry.aliases("digits")) == ("promoted", {"champion": 1})
