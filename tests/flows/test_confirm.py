"""`robustdistill confirm` as a user runs it: refused without a teacher, pairs trained once, the answer recorded."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import scenario

from robustdistill.journal import read
from robustdistill.services.mlflow_store import Store


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenario.make(tmp_path_factory.mktemp("confirm") / "digits")


@pytest.fixture(scope="module")
def found(root: Path) -> Any:
    scenario.call(sys.executable, "-m", "dvc", "repro", "teacher", cwd=root)
    return scenario.robustdistill(root, "confirm", "--seeds", "2")


def test_without_a_teacher_it_says_what_to_do(root: Path) -> None:
    refused = scenario.robustdistill(root, "confirm", expect=2)["error"]
    assert "teacher" in refused["cause"] and "flows/retrain.py" in refused["fix"]


def test_pairs_differ_by_seed_and_share_images(found: dict[str, Any]) -> None:
    assert found["images"] == 60
    assert len({row["seed"] for row in found["seeds"]}) == 2
    differences = [row["student_robust"] - row["control_robust"] for row in found["seeds"]]
    assert found["difference"] == pytest.approx(sum(differences) / 2)
    assert found["lower"] <= found["difference"] <= found["upper"]
    assert found["says"] in ("helps", "harms", "non-inferior", "cannot be told")
    assert all(row[f"{role}_core_seconds"] > 0 for row in found["seeds"] for role in ("control", "student"))


def test_the_answer_is_recorded(root: Path, found: dict[str, Any]) -> None:
    store = Store.open(None, root / ".work")
    [run] = [run for run in store.runs(store.experiment("digits")) if run.name.startswith("confirm")]
    assert run.status == "FINISHED"  # and no run of the refused one
    kept = store.client.get_run(run.id).data.metrics
    assert kept["confirm/difference"] == pytest.approx(found["difference"])


def test_what_is_done_is_not_done_again(root: Path, found: dict[str, Any]) -> None:
    (Path(found["file"]).parent / "2" / "student" / "judged.json").unlink()  # as if killed while it was judged
    journal = Path(found["file"]).parent / "journal.jsonl"
    before = journal.stat().st_size
    again = scenario.robustdistill(root, "confirm", "--seeds", "2")
    assert [row["stage"] for _, row in read(journal, before) if row["event"] == "start"] == ["student 2"]
    assert not any(row["event"] == "epoch" for _, row in read(journal, before))  # its training was there
    assert again == found
