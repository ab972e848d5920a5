"""One run: its budget, its training, its judgement, its record. Killed at any moment it goes on where it was."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.study import judging
from benchmarks.study.budget import Clock, Watch, sections
from benchmarks.study.material import material, method_of, needed, plan
from benchmarks.study.plan import Run
from benchmarks.study.world import World, fingerprint

from robustdistill import models
from robustdistill.config import dump
from robustdistill.data.files import write_json
from robustdistill.errors import BadInput
from robustdistill.models import weights
from robustdistill.rng import derive
from robustdistill.stages.tools import Tools
from robustdistill.training import Job, Result, fit, forget

SCHEMA = 1


def execute(run: Run, world: World, *, wait: bool = False) -> bool:
    """Does the run unless its record is there; False if another process is at it. wait: until that one is done."""
    for other in needed(run, world) if world.read(run) is None else []:
        execute(other, world, wait=True)
    with world.locked(run.key, wait=wait) as mine:
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
    train, job_of = material(run, world, method)
    budget = plan(run, world, method, train, job_of)
    part, epochs = sections(train, budget["examples"], derive(run.seed, run.size))
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
    told = {"plan": budget, "objective": _options(job), "training": dump(job.training), **_told(result)}
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
