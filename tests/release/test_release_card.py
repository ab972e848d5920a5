"""The model card says the figures, the conditions, the decision and the limits, and keeps hostile names harmless."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from synthetic_artifacts import build

from robustdistill.errors import BadInput
from robustdistill.release.card import model_card, plain


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = build(tmp_path_factory.mktemp("card"), models=("student", "control"))
    return {name: json.loads((root / "score" / name / "scorecard.json").read_text()) for name in ("student", "control")}


VERDICT = {
    "verdict": "pass",
    "rules": [
        {"rule": "robust", "status": "pass", "sentence": "robust accuracy reaches the floor", "by": None, "why": None},
        {"rule": "clean", "status": "waived", "sentence": "too low", "by": "the owner", "why": "old data"},
        {"rule": "megabytes", "status": "not_applicable", "sentence": "no limit", "by": None, "why": None},
    ],
    "gain": {"answer": "yes", "sentence": "distillation helped"},
}


def test_figures_conditions_and_lineage(cards: dict[str, Any]) -> None:
    card = cards["student"]
    text = model_card(card, None, {"teacher": "abc", "data": "d1"})
    for expected in (
        f"Robust accuracy {100 * card['robust']['accuracy']:.1f} %",
        "9,034 parameters",
        "at most 0.1",
        "| autoattack |",
        "On 160 test examples",
        "Weakest class: ",
        "- teacher: abc\n- data: d1\n",
    ):
        assert expected in text
    assert "Gate" not in text
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


def test_decision_with_waiver_and_gain(cards: dict[str, Any]) -> None:
    text = model_card(cards["student"], VERDICT, {})
    assert "### Gate: passed the gate" in text
    assert "~ clean: too low (waived by the owner: old data)" in text
    assert "**yes**, distillation helped" in text
    assert "megabytes" not in text


def test_warnings_are_limits(cards: dict[str, Any]) -> None:
    assert "warning: PGD and AutoAttack differ" in model_card(cards["control"], None, {})
    assert "warning" not in model_card(cards["student"], None, {})


def test_hostile_names_stay_text(cards: dict[str, Any]) -> None:
    card = json.loads(json.dumps(cards["student"]))
    card["per_class"][0] = {"class": "<img src=x>|\n# [a](javascript:b)\x1b[31m", "n": 1, "clean": 0, "robust": None}
    text = model_card(card, None, {"k|\n## h": "<script>"})
    assert "\\<img src=x\\>\\|\\" in text
    assert "<script>" not in text.replace("\\<script\\>", "")
    assert "\n## h" not in text
    assert "\x1b" not in text


def test_plain_leaves_words_alone() -> None:
    assert plain("T-shirt, 5 % é") == "T-shirt, 5 % é"


@pytest.mark.parametrize("key", ["subject", "threat", "sample", "clean", "robust", "per_class", "attacks", "health"])
def test_an_incomplete_scorecard_is_bad_input(cards: dict[str, Any], key: str) -> None:
    with pytest.raises(BadInput, match=key):
        model_card({name: part for name, part in cards["student"].items() if name != key}, None, {})


def test_cards_are_for_one_page(cards: dict[str, Any], tmp_path: Path) -> None:
    assert len(model_card(cards["control"], VERDICT, {"teacher": "abc"})) < 3000
