"""The journal: whole lines from an offset, whatever several writers and crashes leave."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from robustdistill import journal
from robustdistill.journal import Journal


def _write(path: Path, stage: str) -> None:
    for number in range(200):
        Journal(path, stage).progress(number, 200, "steps", pad="x" * 300)


def test_several_processes_write_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(path, stage)) for stage in ("a", "b")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    records = [record for _, record in journal.read(path)]
    assert len(records) == 400
    assert [record["done"] for record in records if record["stage"] == "b"] == list(range(200))


def test_a_half_written_line_is_left_for_later(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path, "teacher").write("start")
    with path.open("a") as stream:
        stream.write('{"stage": "teacher", "ev')
    [(offset, record)] = journal.read(path)
    assert record["event"] == "start"
    with path.open("a") as stream:
        stream.write('ent": "end"}\n')
    assert [record["event"] for _, record in journal.read(path, offset)] == ["end"]


def test_a_torn_line_does_not_hide_the_next(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text('{"torn\n[1]\n')
    Journal(path, "teacher").write("start")
    assert [record["event"] for _, record in journal.read(path)] == ["start"]
    assert list(journal.read(tmp_path / "none")) == []


@pytest.mark.parametrize(
    ("record", "share"),
    [({"done": 1, "total": 4}, 0.25), ({"done": 5, "total": 4}, 1.0), ({"done": 1, "total": 0}, None), ({}, None)],
)
def test_how_far_a_stage_is(record: dict[str, object], share: float | None) -> None:
    assert journal.fraction(record) == share
