"""The table of methods: in words for everybody, and the same in docs/methods.md."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from robustdistill.cli import main
from robustdistill.objectives import OBJECTIVES, catalogue

DOCS = Path(__file__).parents[2] / "docs" / "methods.md"


def test_docs_hold_the_table_as_it_is_now() -> None:
    assert catalogue.markdown(catalogue.methods()) in DOCS.read_text(encoding="utf-8"), (
        "renew it: robustdistill methods --markdown"
    )


def test_each_kind_of_teacher_is_told() -> None:
    told = {row.name: row.teachers for row in catalogue.methods()}
    assert told["pgd_at"] == told["adr"] == "none"
    assert "companion" in told["peeraid"] and "undefended" in told["mtard"] and "gradient" in told["adaad"]


def test_the_command_lists_them_all(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["methods", "--json"])
    assert stopped.value.code == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == list(OBJECTIVES)
    assert all(all(row.values()) for row in rows)
    assert {row["kind"] for row in rows} == {"no teacher", "companion", "one teacher", "two teachers"}


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    assert isinstance(stopped.value.code, int)
    return (stopped.value.code, *capsys.readouterr())


@pytest.mark.parametrize("width", [80, 160])
def test_the_list_has_a_line_for_each_within_the_width(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    code, out, _ = run(capsys, "methods")
    lines = out.splitlines()
    assert code == 0 and lines[len(OBJECTIVES) + 1] == ""
    assert [line.split()[0] for line in lines[: len(OBJECTIVES) + 1]] == ["method", *OBJECTIVES]
    assert all(len(line) <= width for line in lines)
    assert any(line.endswith("…") for line in lines) == (width == 80)


def test_the_cost_in_short_leaves_no_word_of_a_pass() -> None:
    short = {row.name: row.passes for row in catalogue.methods()}
    assert (short["rslad"], short["trades"], short["iad"]) == ("S K+2 fb; T 1 f", "S K+3 f, K+2 b", "S K+2 fb, T 2 f")
    assert short["igdm"] == "base's, S 1 fb, T 1 f" and short["mtard"] == "S K+2 fb; each T 1 f"
    assert not [text for text in short.values() if "ward" in text or "(" in text or ")" in text]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_one_is_told_with_its_options(capsys: pytest.CaptureFixture[str], name: str) -> None:
    code, out, _ = run(capsys, "methods", name, "--json")
    told = json.loads(out)
    assert code == 0 and told["formula"] == OBJECTIVES[name].formula
    assert [option["name"] for option in told["options"]] == list(OBJECTIVES[name].Config.model_fields)
    assert all(option["description"] for option in told["options"])


def test_one_is_told_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "methods", "rslad")
    words = " ".join(out.split())
    assert code == 0 and "source Zi et al. 2021" in words and "a: share of the KL under attack" in words


def test_an_unknown_one_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, told = run(capsys, "methods", "rslda")
    assert (code, out) == (2, "") and "did you mean 'rslad'?" in told
