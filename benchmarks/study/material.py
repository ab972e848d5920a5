"""What a run is made from: whom it needs, its data and teachers, its budget in examples."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from benchmarks.study.budget import JobOf, examples_for, measured
from benchmarks.study.objectives import build
from benchmarks.study.plan import CONTROL, FEW_CONTROL, METHODS, NATURAL, NATURAL_RUN, SIZES, TEACHERS, Method, Run
from benchmarks.study.world import World

from robustdistill import models
from robustdistill.data.files import write_json
from robustdistill.data.prepared import Split
from robustdistill.models import weights
from robustdistill.objectives.types import Teacher
from robustdistill.rng import derive
from robustdistill.training import Job, held_back

NATURAL_METHOD = Method("ce", {"name": "ce"}, "control", 0, "undefended")
VALIDATIONS = 10  # in one training, at most
REPEATS = 3  # of the first pilot, the fastest counts


def method_of(run: Run) -> Method:
    return NATURAL_METHOD if run.role == "natural" else METHODS[run.method]


def needed(run: Run, world: World) -> list[Run]:
    """Runs of which this one uses the result."""
    if run.role in ("member", "natural"):
        return []
    if run.role == "teacher":
        return world.members()
    method = method_of(run)
    objective = build(method.objective)
    taught = objective.needs_teacher or method.labels == "teacher" or method.teacher_time
    natural = [NATURAL_RUN] if objective.needs_clean_teacher else []
    own = [_beside(run, FEW_CONTROL)] if method.labels == "self" else []
    if world.settings.equal == "epochs" and run.method != method.control:
        own.append(_beside(run, method.control))
    return [*(world.members() if taught else []), *natural, *own]


def _beside(run: Run, method: str) -> Run:
    return replace(run, method=method)


def material(run: Run, world: World, method: Method) -> tuple[Split, JobOf]:
    """The training examples with the labels that may be known, and the job as a function of them."""
    seed = derive(run.seed, "study", run.role)
    spec = world.model_spec(world.architecture(run))
    training = world.params.student.training.model_copy(update={"held_back": 0.0})
    probe = build(method.objective)
    teacher = Teacher(world.teacher()) if probe.needs_teacher else None
    clean = Teacher(world.natural()) if probe.needs_clean_teacher else None
    val = world.prepared.split("val")

    def job_of(part: Split, epochs: int) -> Job:
        every = -(-epochs // VALIDATIONS)
        settings = training.model_copy(update={"epochs": epochs, "select_every": every})
        model = models.build(spec, seed, run.size)
        return Job(model, build(method.objective), part, val, world.threat, settings, seed, teacher, None, clean)

    return _labelled(run, world, method), job_of


def _labelled(run: Run, world: World, method: Method) -> Split:
    train, share = world.prepared.split("train"), method.training.get("held_back", 0.0)
    if not share:
        return train
    hidden = held_back.chosen(train, share, world.params.seed)
    if method.labels == "data":
        return held_back.left_out(train, hidden)
    if method.labels == "self":
        source = Teacher(weights.load(world.home(_beside(run, FEW_CONTROL))))
    else:
        source = Teacher(world.teacher())
    return held_back.labelled(train, hidden, source, source.model.spec, world.compute)  # type: ignore[arg-type]


def plan(run: Run, world: World, method: Method, train: Split, job_of: JobOf) -> dict[str, Any]:
    """The budget, kept: a run that goes on must not measure again."""
    file = world.scratch(run) / "plan.json"
    if file.is_file():
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return found
    seconds = _seconds(run, world, method)
    rate, answer = rate_of(run, world, train, job_of)
    found = {"equal": world.settings.equal, "seconds": seconds, "rate": round(rate, 1), "answer": answer}
    found["examples"] = examples_for(seconds, rate, answer, len(train))
    if world.settings.equal == "epochs" and run.role == "student" and run.method != method.control:
        control = world.read(_beside(run, method.control)) or {}
        found["examples"] = control["spent"]["examples"]
    world.scratch(run).mkdir(parents=True, exist_ok=True)
    write_json(file, found)
    return found


def rate_of(run: Run, world: World, train: Split, job_of: JobOf) -> tuple[float, float]:
    """As `measured`, in seconds of the moment in which the study first measured its control at this size.

    A shared machine is faster at one time and slower at another: a student's pilot is put between two of the control,
    and their rate, against that first one, says how long a second is now. So no method gains by when it ran.
    """
    val, batch = world.prepared.split("val"), world.params.student.training.batch

    def pilot(of: JobOf, data: Split) -> tuple[float, float]:
        return measured(of, data, val, batch, world.compute)

    if run.role != "student":
        return pilot(job_of, train)
    whole, control = material(_beside(run, CONTROL), world, METHODS[CONTROL])
    with world.locked(f"rate-{run.size}", wait=True):
        file = world.out / "rates" / f"{run.size}.json"
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, max(pilot(control, whole)[0] for _ in range(REPEATS)))
        reference = float(json.loads(file.read_text(encoding="utf-8")))
    if run.method == CONTROL:
        return reference, 0.0
    before, (rate, answer), after = pilot(control, whole)[0], pilot(job_of, train), pilot(control, whole)[0]
    slow = (before + after) / 2 / reference
    return rate / slow, answer * slow


def _seconds(run: Run, world: World, method: Method) -> float:
    if run.role == "student":
        extra = world.teacher_seconds() if method.teacher_time else 0.0
        return SIZES[run.size] * world.settings.budget + extra
    return (NATURAL if run.role == "natural" else TEACHERS[run.size][1]) * world.settings.budget
