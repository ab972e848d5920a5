"""The whole judge on models whose robustness is known, from files to files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from judge_toys import Case, judged, write_export

from robustdistill import budget
from robustdistill.data.files import write_json
from robustdistill.errors import BadInput, OutOfTime
from robustdistill.gate.scorecard import Evidence
from robustdistill.journal import read
from robustdistill.judge import judge
from robustdistill.judge.autoattack import AutoAttack
from robustdistill.models import weights

Make = Callable[..., Case]


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    ("classes", "norm", "box", "last", "parts"),
    [
        (2, "linf", (0.0, 1.0), "margin_apgd", ["apgd-ce", "apgd-margin", "fab-t", "square"]),
        (3, "l2", (0.0, 1.0), "margin_apgd", ["apgd-ce", "apgd-dlr", "fab-t", "square"]),
        (4, "linf", (-1.0, 1.0), "autoattack", ["apgd-ce", "apgd-t", "fab-t", "square"]),
        (10, "l2", (-3.0, 5.0), "autoattack", ["apgd-ce", "apgd-t", "fab-t", "square"]),
    ],
)
def test_robust_accuracy_is_the_analytic_one(
    make: Make, classes: int, norm: str, box: tuple[float, float], last: str, parts: list[str]
) -> None:
    case = make(classes, norm, box, attacks=[{"name": "fgsm"}, {"name": "pgd", "steps": 12, "goal": "margin"}])
    card = judged(case)
    evidence = Evidence.load(case.root / "score")
    assert 0.2 < case.analytic.mean() < 0.8
    np.testing.assert_array_equal(evidence.robust, case.analytic)
    assert [attack["name"] for attack in card["attacks"]] == ["fgsm", "pgd-12-margin", last]
    assert card["attacks"][-1]["parts"] == parts
    assert [item for item in card["health"] if not item["ok"] and item["level"] == "error"] == []
    assert card["robust"]["lower"] < card["robust"]["accuracy"] < card["robust"]["upper"]


def test_autoattack_alone_finds_what_is_analytically_broken(make: Make) -> None:
    case = make(5, "linf", (-1.0, 1.0), attacks=[])
    judged(case)
    np.testing.assert_array_equal(Evidence.load(case.root / "score").robust, case.analytic)


def test_worst_inputs_are_kept_and_break_what_they_claim_to(make: Make) -> None:
    import torch

    case = make(10)
    judged(case)
    evidence, worst = Evidence.load(case.root / "score"), np.load(case.root / "score" / "x_adv.npy")
    right = case.model(torch.from_numpy(worst)).argmax(1).numpy() == evidence.labels
    np.testing.assert_array_equal(right, evidence.robust)
    journal = [record for _, record in read(case.root / "journal.jsonl") if record["event"] == "attack"]
    assert journal[-1]["robust"] == evidence.robust.sum() and journal[-1]["done"] == journal[-1]["total"] == 60
    done = [record["done"] for record in journal if record["name"] == "autoattack"]
    assert done == sorted(done)


@pytest.mark.parametrize("stop_after", [1, 4])
def test_a_killed_evaluation_goes_on_and_ends_with_the_same_bytes(
    make: Make, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    case = make(10, attacks=[{"name": "fgsm"}])
    judged(case, "whole", scratch="one")
    original, calls = AutoAttack.run, []

    def dies(self: AutoAttack, *args: Any) -> Any:
        if len(calls) == stop_after:
            raise KeyboardInterrupt
        calls.append(args[0])
        return original(self, *args)

    monkeypatch.setattr(AutoAttack, "run", dies)
    with pytest.raises(KeyboardInterrupt):
        judged(case, "resumed", scratch="two")
    assert not (case.root / "resumed").exists()
    again: list[str] = []
    monkeypatch.setattr(AutoAttack, "run", lambda self, *args: (again.append(args[0]), original(self, *args))[1])
    judged(case, "resumed", scratch="two")
    total = len(list((case.root / "two").rglob("autoattack-*.npz")))
    assert len(again) == total - stop_after
    assert content(case.root / "resumed") == content(case.root / "whole")


@pytest.mark.parametrize("pieces", [1, 3, 1000])
def test_an_evaluation_out_of_time_goes_on_and_ends_with_the_same_bytes(
    make: Make, monkeypatch: pytest.MonkeyPatch, pieces: int
) -> None:
    """Before the first piece, between two, and after the last one."""
    case = make(10, attacks=[{"name": "fgsm"}])
    judged(case, "whole", scratch="one")
    total = len(list((case.root / "one").rglob("*.npz")))
    kept = min(pieces, total + 1) - 1
    asked = iter(range(1, 1000))
    with monkeypatch.context() as patch:
        patch.setattr(budget, "spent", lambda: next(asked) >= min(pieces, total + 1))
        with pytest.raises(OutOfTime, match="stopped before"):
            judged(case, "resumed", scratch="two")
    assert len(list((case.root / "two").rglob("*.npz"))) == kept and not (case.root / "resumed").exists()
    judged(case, "resumed", scratch="two")
    assert content(case.root / "resumed") == content(case.root / "whole")


def test_a_damaged_piece_is_made_again(make: Make) -> None:
    case = make(10, autoattack="none")
    judged(case, "one")
    for piece in (case.root / "scratch").rglob("*.npz"):
        piece.write_bytes(piece.read_bytes()[:100])
    judged(case, "two")
    assert content(case.root / "one") == content(case.root / "two")


def test_the_exported_file_is_attacked_too_and_the_worse_answer_counts(make: Make) -> None:
    case = make(2, autoattack="none", attacks=[{"name": "fgsm"}])
    honest = judged(case, "honest")
    served = weights.load(case.export).requires_grad_(False)
    served.net.linear.bias[0] += 0.3  # type: ignore[union-attr]  # the file errs towards class 0
    write_export(served, case.root / "other", case.classes)
    (case.export / "model.onnx").write_bytes((case.root / "other" / "model.onnx").read_bytes())
    record = json.loads((case.export / "export.json").read_text())
    record["sha256"]["onnx"] = weights.digest(case.export / "model.onnx")
    write_json(case.export / "export.json", record)
    card = judged(case, "score")
    assert honest["attacks"][0]["replayed_only"] == 0 < card["attacks"][0]["replayed_only"]
    lost = Evidence.load(case.root / "honest").robust.sum() - Evidence.load(case.root / "score").robust.sum()
    assert lost > 0
    assert "parity" in {item["name"] for item in card["health"] if not item["ok"]}


def test_what_the_model_was_trained_on_is_not_judged(make: Make) -> None:
    case = make(2)
    seen = tuple(int(number) for number in np.load(case.prepared / "test_id.npy")[:9])
    write_export(case.model, case.export, case.classes, seen)
    card = judged(case)
    assert card["sample"]["trained_on"] == 9
    assert not np.isin(np.load(case.root / "score" / "ids.npy"), seen).any()


def test_what_nobody_recorded_is_said_and_forbids_nothing(make: Make) -> None:
    case = make(2, autoattack="none", attacks=[{"name": "fgsm"}])
    write_export(case.model, case.export, case.classes, unknown=("theirs.safetensors",))
    found = {item["name"]: item for item in judged(case)["health"]}
    assert (found["origin"]["ok"], found["origin"]["level"]) == (False, "warning")
    assert "what theirs.safetensors was trained on is unknown" in found["origin"]["sentence"]
    record = json.loads((case.export / "export.json").read_text())
    del record["unknown"]  # as an earlier version of the program wrote it
    write_json(case.export / "export.json", record)
    [said] = [item["sentence"] for item in judged(case, "older")["health"] if item["name"] == "origin"]
    assert "before this was recorded" in said


@pytest.mark.parametrize("name", ["model.safetensors", "model.onnx", "trained_on.npy"])
def test_changed_weights_are_refused(make: Make, name: str) -> None:
    case = make(2)
    path = case.export / name
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(BadInput, match="not the one that was exported"):
        judged(case)


def test_a_judge_without_attacks_is_refused(make: Make) -> None:
    with pytest.raises(BadInput, match="nothing to judge"):
        judged(make(2, attacks=[], autoattack="none"))


def test_a_model_of_other_data_is_refused(make: Make) -> None:
    case, other = make(2), make(3)
    with pytest.raises(BadInput, match="2 classes"):
        judge(case.export, other.prepared, None, case.root / "score", case.params, case.tools())
    record = json.loads((case.export / "export.json").read_text())
    write_json(case.export / "export.json", record | {"classes": record["classes"][::-1]})
    with pytest.raises(BadInput, match="another order"):
        judged(case)
