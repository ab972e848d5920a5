"""Labels withheld from a training: the teacher's for the student, left out for the control."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from learner_toys import NANO, TRAINING, Stage, make_params

from robustdistill import models
from robustdistill.journal import read
from robustdistill.models import ModelSpec, weights
from robustdistill.stages import control, student, teacher
from robustdistill.stages.tools import Tools


def trained_on(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The training examples of each job that is started."""
    from robustdistill import training

    seen: list[Any] = []
    fit = training.fit
    monkeypatch.setattr(training, "fit", lambda job, tools: seen.append(job.train) or fit(job, tools))
    return seen


def test_withheld_labels_are_the_teachers_or_left_out(
    stage: Stage, reads: dict[str, Path], tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A teacher that takes everything for class 1: whatever label the student is given by it shows."""
    spec = ModelSpec(NANO, (1, 8, 8), 2, 0.0, 1.0, (0.4,), (0.25,))
    stubborn = models.build(spec, 0, "teacher")
    with torch.no_grad():
        stubborn.net.head.bias.copy_(torch.tensor([-99.0, 99.0]))
    reads["teacher"].mkdir()
    weights.save(stubborn.eval(), reads["teacher"])
    seen = trained_on(monkeypatch)
    few = make_params(student={"training": TRAINING | {"held_back": 0.4}})
    stage(student, few, "student")
    stage(control, few, "control")
    stage(student, make_params(), "whole")
    student_on, control_on, everything = seen
    assert np.array_equal(student_on.id, everything.id) and np.array_equal(student_on.x, everything.x)
    known = np.isin(everything.id, control_on.id)
    assert 0.4 < known.mean() < 0.8
    assert np.array_equal(control_on.y, everything.y[known]) and np.array_equal(control_on.x, everything.x[known])
    assert np.array_equal(student_on.y[known], everything.y[known])
    assert (student_on.y[~known] == 1).all()
    wrong = int((everything.y[~known] == 0).sum())
    notes = [record["message"] for _, record in read(tools.journal.path) if record["event"] == "note"]
    told = f"{(~known).sum()} of 60 examples"
    assert notes == [
        f"{told} are labelled by the teacher, {wrong} of them wrongly",
        f"{told} are left out: labels withheld",
    ]


def test_a_larger_share_withholds_more_of_the_same(reads: dict[str, Path]) -> None:
    from robustdistill.data.prepared import Prepared
    from robustdistill.training import held_back

    train = Prepared.open(reads["prepare"]).split("train")
    few, many = held_back.chosen(train, 0.2, 0), held_back.chosen(train, 0.7, 0)
    assert 0 < few.sum() < many.sum() and not (few & ~many).any()
    assert not np.array_equal(many, held_back.chosen(train, 0.7, 1))
    part = held_back.left_out(train, train.id % 2 == 0)
    assert np.array_equal(held_back.chosen(part, 0.7, 0), many[train.id % 2 == 1])


def test_the_teacher_itself_may_go_without_them(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = trained_on(monkeypatch)
    few = {"training": TRAINING | {"held_back": 0.4}}
    params = make_params(teacher=few, student=few)
    stage(teacher, params, "teacher")
    stage(control, params, "control")
    assert np.array_equal(seen[0].id, seen[1].id)
