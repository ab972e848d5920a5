"""What trainings cost, as the report tells it."""

from __future__ import annotations

import json
from pathlib import Path

from robustdistill.actions import cost
from robustdistill.journal import Journal
from robustdistill.workspace import Workspace


def trained(workspace: Workspace, role: str, sha256: str, examples: int, seconds: float, *, kept: bool = True) -> None:
    spent = {"epochs": 3, "examples": examples, "cpu_seconds": seconds}
    Journal(workspace.journal, role).write("trained", sha256=sha256, **spent)
    if kept:
        workspace.out(role).mkdir(parents=True, exist_ok=True)
        (workspace.out(role) / "summary.json").write_text(json.dumps({"sha256": sha256}), encoding="utf-8")


def test_both_budgets_are_told(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert cost.sentence(workspace) == ""
    trained(workspace, "student", "s", 3000, 25.0)
    assert cost.sentence(workspace) == ""  # nothing to hold it against
    trained(workspace, "control", "c", 3000, 20.0)
    assert cost.sentence(workspace) == (
        "student and control trained on 3,000 examples each, in 3 epochs; 25 and 20 CPU seconds of attack and update, "
        "+25% for the student"
    )


def test_what_another_model_took_is_not_told_of_this_one(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    trained(workspace, "student", "s", 3000, 25.0)
    trained(workspace, "student", "later, and thrown away", 9000, 99.0, kept=False)
    assert cost.spent(workspace, "student") == cost.Spent(3, 3000, 25.0)
    (workspace.out("student") / "summary.json").write_text('{"sha256": "from a remote"}', encoding="utf-8")
    assert cost.spent(workspace, "student") is None
    (workspace.out("student") / "summary.json").write_text("torn", encoding="utf-8")
    assert cost.spent(workspace, "student") is None


def test_different_examples_are_said(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    trained(workspace, "student", "s", 3000, 20.0)
    trained(workspace, "control", "c", 1000, 10.0)
    assert cost.sentence(workspace).startswith("the student trained on 3,000 examples, the control on 1,000; ")
