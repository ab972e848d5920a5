"""Stored adversarial examples of another model as an attack."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from judge_toys import Case, judged

from robustdistill.data.files import write_json, write_npy
from robustdistill.errors import BadInput
from robustdistill.gate.scorecard import Evidence

Make = Callable[..., Case]


def write_set(case: Case, eps: float | None = None, drop: int = 0, shift: int = 0) -> Path:
    """All test images as they are, or each pixel moved by `shift` levels."""
    folder = case.root / "adversaries"
    folder.mkdir()
    x, ids = (np.load(case.prepared / f"test_{part}.npy") for part in ("x", "id"))
    write_npy(folder / "test_x_adv.npy", (x[drop:] + shift).astype(np.uint8)[::-1])
    write_npy(folder / "test_id.npy", ids[drop:][::-1])
    threat = {"norm": "linf", "eps": eps or case.params.threat.eps, "low": 0.0, "high": 1.0}
    write_json(folder / "manifest.json", {"threat": threat, "source_sha256": "0" * 64})
    return folder


def test_harmless_examples_leave_the_clean_accuracy(make: Make) -> None:
    case = make(4, autoattack="none")
    row = next(row for row in judged(case, adversaries=write_set(case, drop=5))["attacks"] if row["name"] == "transfer")
    assert row["accuracy"] == Evidence.load(case.root / "score").clean.mean()
    assert "55 of 60" in row["note"]


def test_examples_that_break_what_attacks_left_standing_are_an_error(make: Make) -> None:
    """Each label's logit falls along all pixels alike for this shift only if attacks are blind: use none."""
    case = make(4, autoattack="none", attacks=[])
    case.model.requires_grad_(False)
    x = np.load(case.prepared / "test_x.npy").astype(np.int64)
    folder = write_set(case)
    signs = np.sign(case.model.net.linear.weight.numpy())  # type: ignore[union-attr]
    y = np.load(case.prepared / "test_y.npy")
    levels = int(case.params.threat.eps * 255)  # type: ignore[operator]
    moved = np.clip(x - levels * signs[y].reshape(x.shape).astype(np.int64), 0, 255).astype(np.uint8)
    write_npy(folder / "test_x_adv.npy", moved[::-1])
    card = judged(case, adversaries=folder)
    assert card["robust"]["accuracy"] < card["clean"]["accuracy"]
    assert "transfer" in {item["name"] for item in card["health"] if not item["ok"]}


@pytest.mark.parametrize(
    ("change", "cause"), [({"eps": 9.0}, "different threat models"), ({"shift": 99}, "outside the threat model")]
)
def test_a_set_of_another_threat_model_is_refused(make: Make, change: dict[str, float], cause: str) -> None:
    case = make(2, autoattack="none")
    with pytest.raises(BadInput, match=cause):
        judged(case, adversaries=write_set(case, **change))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["manifest.json", "test_x_adv.npy"])
def test_a_damaged_set_is_refused(make: Make, name: str) -> None:
    case = make(2, autoattack="none")
    folder = write_set(case)
    (folder / name).write_bytes(b"{")
    with pytest.raises(BadInput, match="adversarial set"):
        judged(case, adversaries=folder)
