"""The ledger of looks at a test set: counted, by sample, through a crash; a reason where there were many."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robustdistill.actions import looks
from robustdistill.gate.verdict import Verdict
from robustdistill.workspace import Workspace


def card(sha256: str, digest: str = "d") -> dict[str, Any]:
    return {"sample": {"digest": digest, "n": 250}, "subject": {"sha256": sha256}}


def test_looks_are_counted_by_sample_and_model(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert looks.at(workspace, "d") == looks.Looks(0, 0, 0)
    for sha, digest in (("a", "d"), ("a", "d"), ("b", "d"), ("a", "other")):
        looks.note(workspace, card(sha, digest), "judge")
    found = looks.at(workspace, "d")
    assert found == looks.Looks(3, 2, 250)
    assert found.sentence == "this test set (250 examples) has been looked at 3 times, for 2 models"
    assert looks.at(workspace, "other").sentence.endswith("once, for one model")


def test_a_line_torn_by_a_crash_loses_no_other(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    looks.note(workspace, card("a"), "judge")
    with (workspace.work / looks.FILE).open("ab") as stream:
        stream.write(b'{"t": 1, "digest": "d", "sh\n')
    looks.note(workspace, card("b"), "judge")
    assert looks.at(workspace, "d").times == 2


def test_only_stages_that_are_chosen_by_are_looks(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    for model in ("initial", "teacher", "control", "student"):
        folder = workspace.out(f"score@{model}")
        folder.mkdir(parents=True)
        (folder / "scorecard.json").write_text(json.dumps(card(model)))
        looks.note_stage(workspace, f"score@{model}")
    looks.note_stage(workspace, "prepare")
    assert looks.at(workspace, "d") == looks.Looks(2, 2, 250)


def test_many_looks_are_named_in_the_verdict(tmp_path: Path) -> None:
    workspace, result = Workspace(tmp_path), Verdict("pass", "p", [], None, {"sample_digest": "d"})
    for number in range(looks.MANY):
        assert looks.named(workspace, result) == result
        looks.note(workspace, card(str(number)), "judge")
    found = looks.named(workspace, result)
    assert found.verdict == "pass"
    assert [(rule.rule, rule.status) for rule in found.rules] == [("looks", "informs")]
    assert "nobody has looked at" in found.rules[0].sentence


def test_many_is_where_the_best_of_them_seems_an_interval_too_good() -> None:
    """E max of k standard normal draws = ∫ x k φ(x) Φ(x)^(k−1) dx."""
    x = np.linspace(-9, 9, 20_001)
    phi, cdf = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi), np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in x])

    def most(k: int) -> float:
        return float((x * k * phi * cdf ** (k - 1)).sum() * (x[1] - x[0]))

    assert most(2) == pytest.approx(1 / math.sqrt(math.pi), abs=1e-6)
    assert most(looks.MANY - 1) < 1.96 <= most(looks.MANY)
