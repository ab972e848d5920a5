"""The rows beside the robust accuracy: all blocks, none of an older scorecard, and reasons where there is no figure."""

from __future__ import annotations

from pathlib import Path

from robustdistill.release.around import corrupted, line, rows, weakest
from robustdistill.release.material import Material, Model

CARD = {
    "bounds": {"method": "ibp", "certified": 0.25, "n": 40, "reason": ""},
    "around": {
        "calibration": {"n": 40, "clean": {"ece": 0.1, "brier": 0.2}, "attacked": {"ece": 0.5, "brier": 0.9}},
        "corruptions": {"n": 30, "mean": 0.7, "kinds": {"shot_noise": [0.9, 0.8, 0.7, 0.6, 0.5]}},
        "threats": {"n": 20, "attack": "screen", "clean": 1.0, "rows": [{"norm": "l2", "eps": 1.0, "accuracy": 0.4}]},
        "nearest": {"n": 10, "found": 4, "norm": "linf", "median": None},
    },
}


def test_every_block_has_its_rows() -> None:
    found = {what: (figure, n) for what, figure, n in rows(CARD)}
    assert found["certified by interval bounds"] == ("25.0 %", "40")
    assert found["calibration error, Brier score (attacked)"] == ("0.500, 0.900", "40")
    assert found["· shot noise, severity 1 to 5"] == ("90.0 % 80.0 % 70.0 % 60.0 % 50.0 %", "30")
    assert found["under l2 eps 1 (screen)"] == ("40.0 %", "20")
    assert found["median distance to a wrong input (linf, FAB)"] == ("–", "10")


def test_the_short_form_tells_all_blocks() -> None:
    sides = {"same": 0.5, "lower": 0.4, "upper": 0.6, "kl": 0.25}
    attacks = [{"name": "pgd-20", "accuracy": 0.5}, {"name": "transfer-teacher", "accuracy": 0.75}]
    card = CARD | {"attacks": attacks, "agreement": {"n": 40, "clean": sides, "attacked": {**sides, "kl": None}}}
    assert line(card) == (
        "corruptions 70.0 % · calibration error 0.100, attacked 0.500 · l2 1: 40.0 % · transfer from teacher 75.0 % · "
        "as the teacher 50.0 %, attacked 50.0 %"
    )
    found = {what: figure for what, figure, _ in rows(card)}
    assert found["same class as the teacher, KL from it (clean)"] == "50.0 %, 0.250"
    assert found["same class as the teacher, KL from it (attacked)"] == "50.0 %, –"
    assert line({}) == ""


def test_the_weakest_class_has_a_tile() -> None:
    sides = {"clean": {"class": "3", "n": 9, "accuracy": 0.9}, "robust": {"class": "8", "n": 12, "accuracy": 0.25}}
    assert weakest({"worst_class": sides}) == [("worst class", "25.0 %", "8, 12 examples; clean: 90.0 % for 3")]
    assert weakest({}) == []


def test_an_older_scorecard_has_none_and_a_missing_bound_a_reason() -> None:
    assert list(rows({})) == []
    (row,) = rows({"bounds": {"method": "ibp", "certified": None, "reason": "no bound for a GRU"}})
    assert row[1] == "none: no bound for a GRU"


def material(card: dict[str, object]) -> Material:
    return Material(Path(), {"model": Model("model", card, None, None, [], [])}, None)


def test_corruptions_are_drawn_as_the_mean_of_the_kinds() -> None:
    kinds = {"shot_noise": [0.9, 0.8, 0.7, 0.6, 0.5], "blur": [0.7, 0.6, 0.5, 0.4, 0.3]}
    card = {"clean": {"accuracy": 0.95}, "around": {"corruptions": {"n": 30, "mean": 0.6, "kinds": kinds}}}
    chart, models = corrupted(material(card))
    assert [model.name for model in models] == ["model"]
    assert "model ends at 40%" in chart
    for shown in ("95.0 % at 0", "80.0 % at 1", "40.0 % at 5"):
        assert shown in chart
    assert corrupted(material({"clean": {"accuracy": 0.95}})) == ("", [])
