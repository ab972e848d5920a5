"""What a person sees: a modest number of lines in a log, and a result with every figure in it."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from robustdistill import console
from robustdistill.actions.summary import ModelRow, StageRow, Summary


@pytest.fixture
def out() -> Console:
    return Console(file=io.StringIO(), width=120, highlight=False)


def _text(out: Console) -> str:
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def _event(event: str, stage: str = "teacher", **fields: Any) -> dict[str, Any]:
    return {"event": event, "stage": stage, "t": 0.0, "run": "", **fields}


def test_a_log_gets_few_lines_but_every_end_and_alarm(out: Console) -> None:
    progress = console.PlainProgress(out)
    progress(_event("start"))
    for step in range(1000):
        progress(_event("progress", done=step, total=1000, unit="steps"))
    progress(_event("resumed", message="goes on at step 300 of 1000"))
    progress(_event("alarm", message="catastrophic overfitting:", advice="take more steps"))
    progress(_event("end", seconds=3.0))
    lines = _text(out).splitlines()
    assert len(lines) <= 5
    assert "goes on at step 300" in _text(out)
    assert "take more steps" in _text(out) and "done in 3.0 s" in lines[-1]


def test_a_failure_in_a_live_display_is_said(out: Console) -> None:
    live = console.LiveProgress(out)
    live(_event("start"))
    live(_event("attack", name="pgd-20", done=3, total=10, robust=2))
    live(_event("failed", message="the disk is full"))
    live.close()
    assert "the disk is full" in _text(out)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (_event("epoch", epoch=3, loss=0.5, val_clean=0.9, val_pgd=None), "epoch 3 · loss 0.500 · val_clean 0.900"),
        (_event("attack", name="apgd-ce", done=5, total=9, robust=4), "apgd-ce 5/9 images · 4 still robust"),
        (
            _event("attack", name="autoattack", part="square", done=0, total=9, robust=4, query=7, queries=500),
            "autoattack 0/9 images · square query 7 of at most 500 · 4 still robust",
        ),
        (_event("progress", done=5, total=9, unit="steps"), "5/9 steps"),
    ],
)
def test_an_event_in_words(record: dict[str, Any], words: str) -> None:
    assert console.describe(record) == words


def _summary() -> Summary:
    figure = {"accuracy": 0.75, "lower": 0.7, "upper": 0.8}
    rule = {"rule": "robust", "status": "fail", "sentence": "robust accuracy 75 % is below [the] floor"}
    return Summary(
        "/w", "refused", "did not pass",
        [
            StageRow("teacher", True, 2.0),
            StageRow("initial", False),
            StageRow("student", False, withheld="the teacher did not qualify"),
        ],
        [ModelRow("student", 10_168, figure, figure, {"pgd-20": figure})],
        {"rules": [rule], "gain": {"answer": "undecided", "sentence": "the sample does not tell"}},
        ["m version 1"], [("report", "/w/report.html")],
    )  # fmt: skip


def test_a_result_is_shown_whole(out: Console) -> None:
    console.show(_summary(), out)
    text = _text(out)
    rows = [" ".join(line.replace("│", " ").split()) for line in text.splitlines()]
    assert {"teacher 2.0 run", "initial – unchanged", "student – not run: the teacher did not qualify"} <= set(rows)
    for words in ("10,168", "75.0 (70–80)", "[the] floor", "undecided", "REFUSED", "/w/report.html"):
        assert words in text


def test_the_weakest_class_and_what_surrounds_the_student_are_shown(out: Console) -> None:
    figure = {"accuracy": 0.75, "lower": 0.7, "upper": 0.8}
    weakest = {"class": "[8]", "n": 29, "accuracy": 0.172}
    replayed = {"pgd-20": figure, "transfer-teacher": figure}
    models = [
        ModelRow("control", 5, figure, figure, {"pgd-20": figure}, weakest, "not shown"),
        ModelRow("student", 5, figure, figure, replayed, weakest, "corruptions 81.0 %"),
    ]
    console.show(replace(_summary(), models=models, looks="looked at 7 times"), out)
    text = _text(out)
    for words in ("17.2 ([8], n 29)", "around the student: corruptions 81.0 %", "looked at 7 times"):
        assert words in text
    assert "not shown" not in text and "transfer-teacher" not in text  # one model faced it: it stands in `around`


def test_a_narrow_terminal_keeps_the_names_of_the_models() -> None:
    narrow, figure = Console(file=io.StringIO(), width=60, highlight=False), _summary().models[0].clean
    attacks = dict.fromkeys(("fgsm", "pgd-20", "transfer", "autoattack"), figure)
    narrow.print(console.models_table([ModelRow("student", 10_168, figure, figure, attacks)]))
    assert "student" in _text(narrow)


@pytest.mark.parametrize(("columns", "width"), [("70", 70), ("200", 200), ("", 160), ("wide", 160), ("0", 160)])
def test_a_pipe_is_as_wide_as_columns_says(monkeypatch: pytest.MonkeyPatch, columns: str, width: int) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("TERM", "dumb")
    for made in (console.console(), console.answers()):
        assert not made.is_terminal and made.width == width


def test_a_judgement_spells_its_eps(out: Console) -> None:
    figure = {"accuracy": 0.75, "lower": 0.7, "upper": 0.8}
    threat = {"norm": "linf", "eps": 8 / 255, "low": 0.0, "high": 1.0}
    told = {"threat": threat, "sample": {"n": 20}, "clean": figure, "robust": figure, "attacks": [], "notes": []}
    console.judgement({**told, "checks": [], "healthy": True, "robust_accuracy": 0.75}, out)
    assert "20 examples, linf eps 8/255" in " ".join(_text(out).split())


def test_a_judgement_says_what_its_attacks_were(out: Console) -> None:
    figure = {"accuracy": 0.75, "lower": 0.7, "upper": 0.8}
    attacks = [
        {"name": "pgd-20", "parts": ["pgd"], "note": "", **figure},
        {"name": "margin_apgd", "parts": ["apgd-ce", "apgd-margin"], "note": "not AutoAttack: 2 classes", **figure},
    ]
    threat = {"norm": "linf", "eps": 8 / 255, "low": 0.0, "high": 1.0}
    told = {"threat": threat, "sample": {"n": 20}, "clean": figure, "robust": figure, "attacks": attacks, "notes": []}
    console.judgement({**told, "checks": [], "healthy": True, "robust_accuracy": 0.75}, out)
    lines = _text(out).splitlines()
    assert "margin_apgd (apgd-ce, apgd-margin): not AutoAttack: 2 classes" in lines
    assert not [line for line in lines if line.startswith("pgd-20")]


def test_a_summary_survives_json() -> None:
    assert Summary.from_json(_summary().to_json()) == _summary()
    assert _summary().exit_code == 1
