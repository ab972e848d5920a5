"""Followers of the journal: every line once, to every listener, whatever a listener does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robustdistill.actions.follow import Follower, listening
from robustdistill.journal import Journal


def test_each_line_is_told_once_in_order(tmp_path: Path) -> None:
    path, heard, also = tmp_path / "journal.jsonl", [], []
    Journal(path, "prepare").write("end")  # before the run: not its news
    with (
        listening(lambda record: also.append(record["done"])),
        Follower(path, [lambda record: heard.append(record["done"])], every=0.01),
    ):
        for number in range(50):
            Journal(path, "teacher").progress(number, 50, "steps")
    assert heard == also == list(range(50))


def test_a_listener_that_raises_is_dropped_and_the_others_go_on(tmp_path: Path) -> None:
    path, heard = tmp_path / "journal.jsonl", []

    def broken(record: Mapping[str, Any]) -> None:
        raise ValueError("no terminal")

    follower = Follower(path, [broken, lambda record: heard.append(record["event"])], every=0.01)
    with follower:
        Journal(path, "teacher").write("start")
        Journal(path, "teacher").write("end")
    assert heard == ["start", "end"]
    assert [str(error) for error in follower.failures] == ["no terminal"]
