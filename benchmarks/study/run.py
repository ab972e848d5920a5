"""One run: its budget, its training, its judgement, its record. Killed at any moment it goes on where it was."""

from __future__ import annotations

import fcntl
import json
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.study import judging
from benchmarks.study.budget import Clock, JobOf, Watch, examples_for, measured, sections
from benchmarks.study.objectives import build
from benchmarks.study.plan import CONTROL, FEW_CONTROL, METHODS, NATURAL, NATURAL_RUN, SIZES, TEACHERS, Method, Run
from benchmarks.study.world import World, fingerprint

from robustdistill import models
from robustdistill.config import dump
from robustdistill.data.files import write_json
from robustdistill.data.prepared import Split
from robustdistill.errors import BadInput
from robustdistill.models import weights
from robustdistill.objectives.types import Teacher
from robustdistill.rng import derive
from robustdistill.stages.tools import Tools
from robustdistill.training import Job, Result, fit, forget, held_back

SCHEMA = 1
NATURAL_METHOD = Method("ce", {"name": "ce"}, "control", 0, "undefended")
REPEATS = 3  # of the first pilot, the fastest counts
VALIDATIONS = 10  # in one training, at most


def execute(run: Run, world: World, *, wait: bool = False) -> bool:
    """Does the run unless its record is there; False if another process is at it. wait: until that one is done."""
    with _locked(world, run.key, wait=wait) as mine:
        if not mine:
            return False
        if world.read(run) is None:
            try:
                record = _record(run, world)
            except BadInput as error:  # a training that breaks down is a result too
                record = {"failed": str(error)}
            world.record(run).parent.mkdir(parents=True, exist_ok=True)
            write_json(world.record(run), {**_head(run, world), **record})
    return True


@contextmanager
def _locked(world: World, name: str, *, wait: bool) -> Iterator[bool]:
    file = world.out / "scratch" / f"{name}.lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def _record(run: Run, world: World) -> dict[str, Any]:
    if run.role == "teacher":
        model, trained = world.teacher(), {"spent": {"seconds": world.teacher_seconds()}}
        sha256 = fingerprint([world.home(member) for member in world.members()])
    else:
        trained = _trained(run, world)
        model = weights.load(world.home(run)).requires_grad_(False)
        sha256 = weights.digest(world.home(run) / "model.safetensors")
    found = {**trained, "parameters": models.parameters(model), "sha256": sha256}
    found["validation"] = judging.screen(model, world)
    if run.stage == "confirm":
        scratch = world.scratch(run) / "judge"
        found["test"] = judging.test(model, sha256, world, Tools(world.compute, _journal(run, world), scratch))
    return found


def _trained(run: Run, world: World) -> dict[str, Any]:
    """Trains unless that has been done; what there is to say of it."""
    file = world.home(run) / "trained.json"
    if file.is_file():
        return _read(file)
    method = method_of(run)
    train, job_of = _material(run, world, method)
    plan = _plan(run, world, method, train, job_of)
    part, epochs = sections(train, plan["examples"], derive(run.seed, run.size))
    scratch = world.scratch(run)
    scratch.mkdir(parents=True, exist_ok=True)
    clock = Clock.at(scratch / "clock.json")
    clock.keep()
    with clock.without_validation():
        job = job_of(part, epochs)
        result = fit(job, Tools(world.compute, _journal(run, world, clock), scratch))
    seconds = clock.seconds
    world.home(run).mkdir(parents=True, exist_ok=True)
    weights.save(result.best, world.home(run))
    told = {"plan": plan, "objective": _options(job), "training": dump(job.training), **_told(result)}
    examples = len(part) * epochs
    told["spent"] = {
        "seconds": round(seconds, 3), "examples": examples, "passes": round(examples / len(train), 4),
        "examples_per_second": round(examples / seconds, 1), "processes": clock.parts,
    }  # fmt: skip
    write_json(file, told)
    forget(scratch)
    return told


def _told(result: Result) -> dict[str, Any]:
    curve = [
        {key: round(row[key], 4) for key in ("epoch", "val_clean", "val_pgd") if key in row}
        for row in result.history if "val_clean" in row
    ]  # fmt: skip
    alarms = [alarm["message"] for alarm in result.alarms]
    return {"curve": curve, "epochs": len(result.history), "selected_epoch": result.best_epoch, "alarms": alarms}


def method_of(run: Run) -> Method:
    return NATURAL_METHOD if run.role == "natural" else METHODS[run.method]


def needed(run: Run, world: World) -> list[Run]:
    """Runs of which this one uses the result, but for those that it does itself."""
    if run.role in ("member", "natural"):
        return []
    if run.role == "teacher":
        return world.members()
    method = method_of(run)
    objective = build(method.objective)
    taught = objective.needs_teacher or method.labels == "teacher" or method.teacher_time
    natural = [NATURAL_RUN] if objective.needs_clean_teacher else []
    return [*(world.members() if taught else []), *natural]


def _material(run: Run, world: World, method: Method) -> tuple[Split, JobOf]:
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
        own = Run(run.role, run.size, FEW_CONTROL, run.seed, run.stage)
        execute(own, world, wait=True)
        source = Teacher(weights.load(world.home(own)))
    else:
        source = Teacher(world.teacher())
    return held_back.labelled(train, hidden, source, source.model.spec, world.compute)  # type: ignore[arg-type]


def _plan(run: Run, world: World, method: Method, train: Split, job_of: JobOf) -> dict[str, Any]:
    """The budget, kept: a run that goes on must not measure again."""
    file = world.scratch(run) / "plan.json"
    if file.is_file():
        return _read(file)
    seconds = _seconds(run, world, method)
    rate, answer = _rate(run, world, train, job_of)
    found = {"equal": world.settings.equal, "seconds": seconds, "rate": round(rate, 1), "answer": answer}
    found["examples"] = examples_for(seconds, rate, answer, len(train))
    if world.settings.equal == "epochs" and run.role == "student" and run.method != method.control:
        control = Run(run.role, run.size, method.control, run.seed, run.stage)
        execute(control, world, wait=True)
        found["examples"] = _read(world.record(control))["spent"]["examples"]
    world.scratch(run).mkdir(parents=True, exist_ok=True)
    write_json(file, found)
    return found


def _rate(run: Run, world: World, train: Split, job_of: JobOf) -> tuple[float, float]:
    """As `measured`, in seconds of the moment in which the study first measured its control at this size.

    A shared machine is faster at one time and slower at another: a student's pilot is put between two of the control,
    and their rate, against that first one, says how long a second is now. So no method gains by when it ran.
    """
    val, batch = world.prepared.split("val"), world.params.student.training.batch

    def pilot(of: JobOf, data: Split) -> tuple[float, float]:
        return measured(of, data, val, batch, world.compute)

    if run.role != "student":
        return pilot(job_of, train)
    yardstick = Run(run.role, run.size, CONTROL, run.seed, run.stage)
    whole, control = _material(yardstick, world, METHODS[CONTROL])
    with _locked(world, f"rate-{run.size}", wait=True):
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


def _options(job: Job) -> dict[str, Any]:
    return {"name": job.objective.name, **dump(job.objective.config)}


def _journal(run: Run, world: World, clock: Clock | None = None) -> Watch:
    return Watch(world.out / "journal.jsonl", run.key, clock or Clock())


def _head(run: Run, world: World) -> dict[str, Any]:
    method = None if run.role == "teacher" else method_of(run)
    return {
        "schema": SCHEMA,
        "run": asdict(run),
        "kind": method.kind if method else "teacher",
        "about": method.about if method else "",
        "settings": asdict(world.settings),
        "threat": world.threat.to_json(),
        "versions": {
            "python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__,
            "robustdistill": version("robustdistill"),
        },
        "cpu": cpu_flags(),
    }  # fmt: skip


def cpu_flags() -> list[str]:
    """What the processor can do that matters to speed; [] where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    flags = next((line.split(":")[1].split() for line in lines if line.startswith("flags")), [])
    return sorted(flag for flag in flags if flag.startswith(("avx", "amx", "fma")))


def _read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found
