"""What a run's record says beside the journal: the params of its stages, its data, the load of its machine."""

from __future__ import annotations

import getpass
import time
from collections import deque
from pathlib import Path
from typing import Any

import yaml

from robustdistill.errors import RobustDistillError
from robustdistill.services.mlflow_store import DIGEST_LENGTH, Measure
from robustdistill.workspace import Workspace

SAMPLE_SECONDS = 5.0
SAMPLES_KEPT = 1000


def standing_tags() -> dict[str, str]:
    """Who and what made a run, in the columns of MLflow's table."""
    return {"mlflow.user": getpass.getuser(), "mlflow.source.name": "robustdistill", "mlflow.source.type": "JOB"}


def stage_params(root: Path) -> dict[str, dict[str, str]]:
    """Stage, or its kind, -> the few params by which its runs differ; {} for a workspace that cannot be read."""
    try:
        params = Workspace(root).params()
    except RobustDistillError:
        return {}
    student = params.student
    learners = {"initial": params.initial, "teacher": params.teacher, "student": student, "control": student}
    found = {}
    for stage, learner in learners.items():
        objective = params.control.objective if stage == "control" else learner.objective
        training = learner.training
        found[stage] = {
            "model": _spec(learner.model),
            "objective": _spec(objective),
            "epochs": str(training.epochs),
            "batch": str(training.batch),
            "lr": str(training.lr),
            "optimizer": training.optimizer,
            "seed": str(params.seed),
        }
    judge = params.judge
    found["prepare"] = {"source": params.data.source, "seed": str(params.seed)}
    found["adversaries"] = {"attack": _spec(params.adversaries.attack)}
    found["score"] = {
        "attacks": ", ".join(_spec(attack) for attack in judge.attacks),
        "autoattack": judge.autoattack,
        "examples": str(judge.examples),
    }
    return found


def _spec(spec: dict[str, Any]) -> str:
    """{"name": "pgd", "steps": 20} -> pgd(steps=20)."""
    options = ", ".join(
        f"{key}={value}" for key, value in spec.items() if key != "name" and not isinstance(value, dict)
    )
    return f"{spec['name']}({options})" if options else str(spec["name"])


def dataset(root: Path) -> dict[str, str] | None:
    """name, digest and source of the versioned data, from data.dvc; None before there is one."""
    pointer = root / "data.dvc"
    try:
        out = yaml.safe_load(pointer.read_text(encoding="utf-8"))["outs"][0]
        digest, name = str(out["md5"]), str(out["path"])
    except (OSError, yaml.YAMLError, KeyError, IndexError, TypeError):
        return None
    return {"name": name, "digest": digest, "source": f"data.dvc:{digest}"} if len(digest) <= DIGEST_LENGTH else None


class Samples:
    """CPU and memory of this process and its children, the newest thousand that have not been sent."""

    def __init__(self) -> None:
        self._kept: deque[Measure] = deque(maxlen=SAMPLES_KEPT)
        self._step, self._next = 0, 0.0

    def take(self) -> None:
        """A sample, if the last one is five seconds old."""
        import psutil

        if time.monotonic() < self._next:
            return
        if self._step == 0:
            psutil.cpu_percent(None)  # the first answer is always 0: it has nothing to compare with
        self._next = time.monotonic() + SAMPLE_SECONDS
        megabytes = 0.0
        for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
            try:
                megabytes += process.memory_info().rss / 1e6
            except psutil.Error:
                continue  # it has just ended
        now = time.time()
        if self._step:
            self._kept.append(Measure("system/cpu_percent", psutil.cpu_percent(None), now, self._step))
        self._kept.append(Measure("system/memory_megabytes", megabytes, now, self._step))
        self._step += 1

    def pending(self) -> list[Measure]:
        return list(self._kept)

    def sent(self, measures: list[Measure]) -> None:
        """Forgets these."""
        while self._kept and measures and self._kept[0].time <= measures[-1].time:
            self._kept.popleft()
