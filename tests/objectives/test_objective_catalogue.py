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
