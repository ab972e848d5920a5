"""Second teachers, companions and recurrent models in the loop: who is trained, who stays, and that it is worth it."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from training_bench import Bench, make_bench, make_job

from robustdistill import models
from robustdistill.models import Classifier
from robustdistill.objectives.types import Teacher
from robustdistill.training import Job, fit
from robustdistill.training.identity import identity

ATTACK = {"name": "pgd", "steps": 2}
GRU = {"name": "gru", "hidden": 24}


def spec(name: str, **options: Any) -> dict[str, Any]:
    return {"name": name, "attack": ATTACK, **options}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Classifier]:
    """A robust and an undefended CNN, and a robust GRU."""
    jobs = {
        "robust": make_job(n=200, epochs=4),
        "clean": make_job({"name": "ce"}, n=200, epochs=3),
        "gru": make_job(spec("pgd_at"), n=200, epochs=6, optimizer="adam", lr=0.02, model=GRU),
    }
    return {name: fit(job, make_bench(tmp_path_factory.mktemp(name))).best for name, job in jobs.items()}


def taught(job: Job, trained: dict[str, Classifier], teacher: str = "robust") -> Job:
    found = {"teacher": Teacher(copy.deepcopy(trained[teacher]))}
    if job.clean_teacher is not None:
        found["clean_teacher"] = Teacher(copy.deepcopy(trained["clean"]))
    return dataclasses.replace(job, **found)


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in one.state_dict().items())


@pytest.mark.parametrize("name", ["mtard", "b_mtard", "lbgat", "peeraid", "adr"])
def test_it_learns_what_can_be_learnt(bench: Bench, trained: dict[str, Classifier], name: str) -> None:
    job = taught(make_job(spec(name), n=200, epochs=4, lr=0.2 if "mtard" in name else 0.1), trained)
    result = fit(job, bench)
    assert result.best_row["val_clean"] > 0.9  # half are of either class
    assert result.best_row["val_pgd"] > 0.75
    assert result.history[-1]["loss"] < result.history[0]["loss"]


@pytest.mark.parametrize("name", ["lbgat", "peeraid"])
def test_a_companion_is_trained_as_the_student_is(bench: Bench, name: str) -> None:
    job = make_job(spec(name), n=200, epochs=4)
    result = fit(job, bench)
    (companion,) = job.objective.companions()
    assert not same(companion, models.build(result.best.spec, job.seed, "companion"))
    x = torch.from_numpy(job.val.x).float() / 255
    with torch.no_grad():
        right = companion.eval()(x).argmax(1) == torch.from_numpy(job.val.y)
    assert right.float().mean() > 0.9
    assert models.parameters(result.best) == models.parameters(job.model)  # what is kept is the student alone


def test_the_average_of_adr_is_the_loops_to_update(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_job(spec("adr", decay=0.5), epochs=1)
    began = copy.deepcopy(job.model.state_dict())
    path: list[dict[str, torch.Tensor]] = [began]
    after_step = job.objective.after_step

    def watch(student: torch.nn.Module) -> None:
        after_step(student)
        path.append(copy.deepcopy(student.state_dict()))

    monkeypatch.setattr(job.objective, "after_step", watch)
    fit(job, bench)
    assert len(path) == 7  # six steps
    key = "net.head.weight"
    expected = began[key]
    for state in path[1:]:
        expected = 0.5 * expected + 0.5 * state[key]
    torch.testing.assert_close(job.objective.average.state_dict()[key], expected)


def test_both_teachers_stay_bit_equal_and_tell_jobs_apart(bench: Bench, trained: dict[str, Classifier]) -> None:
    job = taught(make_job(spec("mtard")), trained)
    plain, other = make_job(spec("mtard")), dataclasses.replace(job, clean_teacher=job.teacher)
    assert len({identity(one) for one in (job, plain, other, dataclasses.replace(job, clean_teacher=None))}) == 4
    fit(job, bench)
    assert job.teacher is not None and job.clean_teacher is not None
    assert same(job.teacher.model, trained["robust"]) and same(job.clean_teacher.model, trained["clean"])


@pytest.mark.parametrize(("teacher", "student"), [("gru", None), ("robust", GRU)], ids=["GRU to CNN", "CNN to GRU"])
def test_a_recurrent_model_teaches_and_is_taught(
    bench: Bench, trained: dict[str, Classifier], teacher: str, student: dict[str, Any] | None
) -> None:
    moving: dict[str, Any] = {"optimizer": "adam", "lr": 0.02} if student else {"lr": 0.2}
    job = taught(make_job(spec("rslad"), n=200, epochs=6, model=student, **moving), trained, teacher)
    result = fit(job, bench)
    assert result.best_row["val_clean"] > 0.9 and result.best_row["val_pgd"] > 0.7
    assert same(job.teacher.model, trained[teacher])  # type: ignore[union-attr]
    assert result.best.spec.model["name"] == (student or {"name": "small_cnn"})["name"]
