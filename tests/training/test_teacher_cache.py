"""The teacher's clean answers, kept: the same training in less time, whatever happens to the file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_resume import interrupted, kept
from training_bench import SPEC, Bench, make_job

from robustdistill import models
from robustdistill.objectives.types import TEACHER_LOGITS, Teacher
from robustdistill.rng import Draws
from robustdistill.training import Job, fit, forget, teacher_cache
from robustdistill.training.augment import augment
from robustdistill.training.feed import Feed
from robustdistill.training.stored import Stored

STEPS = 6  # of an epoch: 90 examples, 16 in a batch at most


def make(augment: list[str] = (), objective: dict[str, Any] | None = None, **training: Any) -> Job:  # type: ignore[assignment]
    rslad = {"name": "rslad", "attack": {"name": "pgd", "steps": 2}} | (objective or {})
    return make_job(rslad, teacher=True, augment=list(augment), epochs=3, **training)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the batches that a teacher was asked about."""
    sizes: list[int] = []
    logits = Teacher.logits

    def watched(self: Teacher, x: torch.Tensor) -> torch.Tensor:
        sizes.append(len(x))
        return logits(self, x)

    monkeypatch.setattr(Teacher, "logits", watched)
    return sizes


def opened(job: Job, bench: Bench) -> teacher_cache.Answers | None:
    feed = Feed(job.train, job.model.spec, "cpu")
    return teacher_cache.opened(job, feed, STEPS, bench.compute, bench.journal, bench.scratch)


@pytest.mark.parametrize(("moves", "variants"), [([], 1), (["flip"], 2)])
def test_each_appearance_is_asked_about_once(bench: Bench, asked: list[int], moves: list[str], variants: int) -> None:
    cached = fit(make(moves), bench)
    assert asked == [15] * STEPS * variants
    asked.clear()
    live = fit(make(moves, {"teacher_cache": "never"}), dataclasses.replace(bench, scratch=bench.scratch / "live"))
    assert asked == [15] * STEPS * 3
    for one, other in zip(cached.history, live.history, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-3)  # bit-equal where a batch's mates do not matter


@pytest.mark.parametrize("moves", [[], ["flip"]])
def test_the_answers_are_about_the_example_as_it_is_shown(bench: Bench, moves: list[str]) -> None:
    job = make(moves)
    answers = opened(job, bench)
    assert answers is not None and isinstance(answers.table, np.memmap)
    positions = torch.tensor([7, 3, 88, 41, 40, 2])
    x, _, index = Feed(job.train, SPEC, "cpu").take(positions)
    moved = [augment(x, index, draws, moves, 0.0) for draws in (Draws(0), Draws(0, epoch=1))]
    assert torch.equal(*moved) == (not moves)
    for shown, draws in zip(moved, (Draws(0), Draws(0, epoch=1)), strict=True):
        torch.testing.assert_close(answers.take(positions, index, draws), job.teacher.logits(shown))


def test_they_are_handed_to_the_objective(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    job, seen = make(["flip"]), []
    forward = type(job.objective).forward
    monkeypatch.setattr(type(job.objective), "forward", lambda self, step: seen.append(step) or forward(self, step))
    fit(job, bench)
    for step in seen[:: STEPS // 2]:
        torch.testing.assert_close(step.batch.context[TEACHER_LOGITS], job.teacher.logits(step.batch.x))


def replaying() -> Job:
    job = make()
    return dataclasses.replace(job, stored=Stored(255 - job.train.x, job.train.id, "replay", share=0.5))


@pytest.mark.parametrize(
    ("job", "notes"),
    [
        (lambda: make(["shift", "flip"]), ["shifted images"]),
        (replaying, ["stored examples"]),
        (lambda: make([], {"teacher_cache": "never"}), []),
        (lambda: make_job(), []),
    ],
)
def test_what_cannot_be_kept_is_asked_about_at_each_step(
    bench: Bench, asked: list[int], job: Callable[[], Job], notes: list[str]
) -> None:
    given = job()
    assert opened(given, bench) is None
    assert not list(bench.scratch.glob("*"))
    found = [event["message"] for event in bench.events("note")] if bench.journal.path.exists() else []
    assert len(found) == len(notes) and all(note in message for note, message in zip(notes, found, strict=True))


def harm_table(folder: Path) -> None:
    content = bytearray((folder / teacher_cache.TABLE).read_bytes())
    content[-1] ^= 1
    (folder / teacher_cache.TABLE).write_bytes(content)


HARMS: dict[str, Callable[[Path], object]] = {
    "a flipped bit": harm_table,
    "cut short": lambda folder: (folder / teacher_cache.TABLE).write_bytes(b"\x93NUMPY"),
    "killed before the index": lambda folder: (folder / teacher_cache.INDEX).unlink(),
    "a torn index": lambda folder: (folder / teacher_cache.INDEX).write_text('{"key": '),
    "a lost table": lambda folder: (folder / teacher_cache.TABLE).unlink(),
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_file_only_costs_time(bench: Bench, asked: list[int], harm: str) -> None:
    first = opened(make(), bench)
    table = np.array(first.table)
    asked.clear()
    assert opened(make(), bench) is not None and not asked
    HARMS[harm](bench.scratch)
    again = opened(make(), bench)
    assert len(asked) == STEPS
    assert np.array_equal(again.table, table)


@pytest.mark.parametrize("change", ["teacher", "normalisation", "examples", "augment", "threads"])
def test_answers_to_another_question_are_not_used(bench: Bench, asked: list[int], change: str) -> None:
    opened(make(), bench)
    asked.clear()
    job, tools = make(["flip"] if change == "augment" else []), bench
    if change == "teacher":
        job = dataclasses.replace(job, teacher=Teacher(models.build(SPEC, 2, "teacher")))
    elif change == "normalisation":
        other = dataclasses.replace(SPEC, mean=(0.1,))
        job = dataclasses.replace(job, teacher=Teacher(models.build(other, 1, "teacher")))
    elif change == "examples":
        job = dataclasses.replace(job, train=dataclasses.replace(job.train, x=255 - job.train.x))
    elif change == "threads":
        tools = dataclasses.replace(bench, compute=dataclasses.replace(bench.compute, threads=2))
    opened(job, tools)
    assert asked


@pytest.mark.parametrize("at", [1, STEPS + 2])
@pytest.mark.parametrize("harm", ["none", "a flipped bit", "a lost table"])
def test_died_anywhere_and_bit_equal(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[int], at: int, harm: str
) -> None:
    interrupted(make(["flip"]), bench, monkeypatch, at)
    HARMS.get(harm, lambda folder: None)(bench.scratch)
    asked.clear()
    resumed = fit(make(["flip"]), bench)
    assert len(asked) == (0 if harm == "none" else 2 * STEPS)
    whole = fit(make(["flip"]), dataclasses.replace(bench, scratch=tmp_path / "whole"))
    assert kept(resumed, tmp_path) == kept(whole, tmp_path)
    forget(bench.scratch)
    assert not list(bench.scratch.iterdir())


def test_a_full_disk_leaves_no_half_file(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(teacher_cache, "write_json", full)
    with pytest.raises(OSError, match="No space"):
        opened(make(), bench)
    assert not (bench.scratch / teacher_cache.INDEX).exists()


def test_progress_is_shown_if_it_takes_long(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(make(), bench)
    assert not bench.journal.path.exists()
    forget(bench.scratch)
    monkeypatch.setattr(teacher_cache, "QUIET_SECONDS", 0.0)
    opened(make(), bench)
    event = bench.events("progress")[0]
    assert (event["done"], event["total"], event["unit"]) == (1, STEPS, "batches answered by the teacher")
    assert json.loads((bench.scratch / teacher_cache.INDEX).read_text())["key"]
