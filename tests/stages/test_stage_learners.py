"""The stages that end in a model: what they write, what they share, what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from learner_toys import ATTACK, FILES, Stage, make_params, summary, write_prepared

from robustdistill import models
from robustdistill.errors import BadInput
from robustdistill.journal import read
from robustdistill.models import ModelSpec, weights
from robustdistill.stages import control, initial, student, teacher
from robustdistill.stages.tools import Tools


def test_the_chain_of_learners(stage: Stage, tools: Tools) -> None:
    params = make_params()
    outs = {name: stage(module, params, name) for name, module in
            (("initial", initial), ("teacher", teacher), ("student", student), ("control", control))}  # fmt: skip
    for name, out in outs.items():
        assert sorted(path.name for path in out.iterdir()) == FILES, name
        found = summary(out)
        assert found["sha256"] == weights.digest(out / "model.safetensors")
        assert found["parameters"] == models.parameters(weights.load(out))
        assert len((out / "history.csv").read_text().splitlines()) == 3
        assert (found["val_pgd"] is None) == (name == "initial")
        weights.load(out, "last")
    assert summary(outs["student"])["objective"]["name"] == "rslad"
    assert summary(outs["control"])["objective"]["name"] == "pgd_at"
    assert not list(tools.scratch.glob("*"))


def test_the_cost_of_a_training_is_journalled(stage: Stage, tools: Tools) -> None:
    params = make_params()
    out = stage(initial, params, "initial")
    told = [record for _, record in read(tools.journal.path) if record["event"] == "trained"]
    assert [record["sha256"] for record in told] == [summary(out)["sha256"]]
    assert told[0]["epochs"] == params.initial.training.epochs
    assert told[0]["examples"] % told[0]["epochs"] == 0
    assert told[0]["cpu_seconds"] > 0


def test_a_stage_writes_the_same_bytes_again(stage: Stage) -> None:
    one = {path.name: path.read_bytes() for path in stage(initial, make_params(), "initial").iterdir()}
    assert one == {path.name: path.read_bytes() for path in stage(initial, make_params(), "initial").iterdir()}
    other = stage(initial, make_params().model_copy(update={"seed": 1}), "initial")
    assert one["model.safetensors"] != (other / "model.safetensors").read_bytes()


def test_student_and_control_differ_in_the_objective_alone(stage: Stage) -> None:
    objective = {"objective": {"name": "pgd_at", "attack": ATTACK}}
    params = make_params(student=objective)
    stage(teacher, params, "teacher")
    one, other = stage(student, params, "student"), stage(control, params, "control")
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


def test_a_control_with_a_teacher_is_refused(stage: Stage) -> None:
    with pytest.raises(BadInput, match="needs a teacher") as caught:
        stage(control, make_params(control={"objective": {"name": "rslad"}}), "control")
    assert caught.value.where == "control.objective"


def test_the_student_has_the_undefended_model_as_its_second_teacher(stage: Stage, reads: dict[str, Path]) -> None:
    params = make_params(student={"objective": {"name": "mtard", "attack": ATTACK}})
    stage(teacher, params, "teacher")
    with pytest.raises(BadInput, match="no description"):
        stage(student, params, "student")
    sums = []
    for seed in (0, 1):  # another undefended model, another student
        stage(initial, params.model_copy(update={"seed": seed}), "initial")
        sums.append(summary(stage(student, params, "student"))["sha256"])
    assert sums[0] != sums[1]


def test_a_student_with_one_teacher_does_not_look_at_the_undefended_model(stage: Stage) -> None:
    stage(teacher, make_params(), "teacher")
    assert summary(stage(student, make_params(), "student"))["objective"]["name"] == "rslad"


@pytest.mark.parametrize(("name", "learner"), [("peeraid", control), ("adr", teacher), ("lbgat", student)])
def test_objectives_that_bring_their_own_teacher_serve_every_stage(stage: Stage, name: str, learner: Any) -> None:
    role = {control: "control", teacher: "teacher", student: "student"}[learner]
    params = make_params(**{role: {"objective": {"name": name, "attack": ATTACK}}})
    if learner is student:
        stage(teacher, params, "teacher")
    out = stage(learner, params, role)
    assert sorted(path.name for path in out.iterdir()) == FILES
    assert models.parameters(weights.load(out)) == summary(out)["parameters"]


@pytest.mark.parametrize("use", ["start", "replay"])
def test_the_teacher_trains_on_stored_examples(stage: Stage, use: str) -> None:
    plain = stage(teacher, make_params(), "plain")
    changed = stage(teacher, make_params(teacher={"adversaries": use}), "changed")
    assert summary(plain)["sha256"] != summary(changed)["sha256"]


def test_a_start_that_nothing_would_begin_at_is_refused(stage: Stage) -> None:
    params = make_params(teacher={"adversaries": "start", "objective": {"name": "ce"}})
    with pytest.raises(BadInput, match="'ce' has no attack that could begin"):
        stage(teacher, params, "teacher")


@pytest.mark.slow
def test_resnet50_teaches_mobilenet(tmp_path: Path, tools: Tools) -> None:
    write_prepared(tmp_path / "colour", shape=(3, 8, 8), n=8)
    reads = {"prepare": tmp_path / "colour", "initial": tmp_path / "none", "teacher": tmp_path / "teacher"}
    reads["teacher"].mkdir()
    spec = ModelSpec({"name": "resnet50", "stride": 2}, (3, 8, 8), 2, 0.0, 1.0, (0.5,) * 3, (0.2,) * 3)
    weights.save(models.build(spec, 0, "teacher"), reads["teacher"])
    two_steps = {"epochs": 2, "batch": 8, "lr": 0.01, "select_examples": 8, "ema": 0.9}
    params = make_params(student={"model": {"name": "mobilenet_v2"}, "training": two_steps})
    out = tmp_path / "student"
    out.mkdir()
    student.run(params, reads, out, tools)
    assert summary(out)["parameters"] > 2e6
    assert (out / "history.csv").read_text().splitlines()[-1].startswith("2,2,")
