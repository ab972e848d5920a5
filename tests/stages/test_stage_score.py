"""score: from an export and the adversarial set to evidence that the gate reads."""

from __future__ import annotations

import json
from pathlib import Path

import judged_workspace as made

from robustdistill.gate.scorecard import Evidence
from robustdistill.stages import adversaries, export, score


def test_the_stages_fit_together_up_to_the_gate(tmp_path: Path) -> None:
    params, reads = made.params(), {"prepare": made.prepared(tmp_path / "prepare")}
    reads["initial"] = reads["model"] = made.model(tmp_path / "initial")
    for stage in (adversaries, export, score):
        name = stage.__name__.rpartition(".")[2]
        reads[name] = tmp_path / name
        reads[name].mkdir()
        stage.run(params, reads, reads[name], made.tools(tmp_path, name))
    evidence = Evidence.load(tmp_path / "score")
    assert evidence.attacks == ("fgsm", "transfer")
    assert "this very model" in evidence.card["attacks"][1]["note"]
    flat = json.loads((tmp_path / "score" / "metrics.json").read_text())
    assert flat["robust"] == evidence.robust.mean() and flat["transfer"] == evidence.outcomes["transfer"].mean()
    lines = (tmp_path / "score" / "curve.csv").read_text().splitlines()
    assert lines[0] == "factor,eps,accuracy,n" and len(lines) == 2


def test_the_student_is_judged_by_what_is_made_for_teacher_and_control(tmp_path: Path) -> None:
    params, reads = made.params(), {"prepare": made.prepared(tmp_path / "prepare")}
    reads["initial"] = reads["model"] = made.model(tmp_path / "initial")
    for role, stage in (("adversaries", adversaries), ("export", export), ("score", score)):
        reads |= {"teacher": reads["export"], "control": reads["export"]} if role == "score" else {}
        reads[role] = tmp_path / role
        reads[role].mkdir()
        stage.run(params, reads, reads[role], made.tools(tmp_path, role))
    evidence = Evidence.load(tmp_path / "score")
    assert evidence.attacks == ("fgsm", "transfer", "transfer-teacher", "transfer-control")
    assert evidence.card["agreement"]["clean"]["same"] == 1.0  # teacher, control and student are one here
    flat = json.loads((tmp_path / "score" / "metrics.json").read_text())
    weakest = evidence.card["worst_class"]["robust"]
    assert (weakest["class"], weakest["accuracy"]) == evidence.worst_class()
    assert flat["worst_class"] == weakest["accuracy"] and flat["agreement_attacked"] == 1.0
    assert flat["transfer-teacher"] == evidence.outcomes["transfer-teacher"].mean()
