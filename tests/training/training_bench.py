"""Toy data and jobs: two classes of 8 × 8 images that a nano network learns in seconds."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from robustdistill import models, objectives
from robustdistill.config import Training
from robustdistill.engine.devices import Compute
from robustdistill.journal import Journal, read
from robustdistill.models import ModelSpec
from robustdistill.objectives.types import Teacher
from robustdistill.rng import Draws
from robustdistill.threat import ThreatModel
from robustdistill.training import Job

SPEC = ModelSpec({"name": "small_cnn", "size": "nano"}, (1, 8, 8), 2, 0.0, 1.0, (0.5,), (0.3,))
THREAT = ThreatModel("linf", 0.1)


@dataclass(frozen=True)
class Toy:
    x: np.ndarray
    y: np.ndarray
    id: np.ndarray


@dataclass(frozen=True)
class Bench:
    """The tools of a stage, and what the journal was told."""

    scratch: Path
    journal: Journal
    compute: Compute = field(default_factory=lambda: Compute("cpu", 1))
    debug: bool = False

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [record for _, record in read(self.journal.path) if record["event"] == kind]


def make_bench(folder: Path) -> Bench:
    return Bench(folder / "scratch", Journal(folder / "journal.jsonl", "student"))


def toy(n: int, seed: int = 0) -> Toy:
    """Bright left or bright right half, under noise."""
    y = np.arange(n, dtype=np.int64) % 2
    noise = np.stack([Draws(seed).permutation(64, f"noise/{k}").reshape(1, 8, 8) for k in range(n)])
    light = np.where((np.arange(8) < 4)[None, :] == (y[:, None] == 0), 150, 0)
    return Toy((noise + light[:, None, None, :]).astype(np.uint8), y, np.arange(n, dtype=np.int64) + 1000 * seed)


def tempting(n: int, seed: int = 0) -> Toy:
    """A faint chequer that is always right and falls to eps 0.1, and halves that hold and mislead in one of seven."""
    y = np.arange(n, dtype=np.int64) % 2
    noise = np.stack([Draws(seed).permutation(64, f"noise/{k}").reshape(1, 8, 8) for k in range(n)]) / 4 - 8
    chequer = np.where((np.indices((8, 8)).sum(0) % 2 == 0) == (y[:, None, None] == 0), 15, -15)
    told = np.where(np.arange(n) // 2 % 7 == 0, 1 - y, y)
    halves = np.where((np.arange(8) < 4)[None, :] == (told[:, None] == 0), 88, -88)
    x = 128 + noise + chequer[:, None] + halves[:, None, None, :]
    return Toy(x.astype(np.uint8), y, np.arange(n, dtype=np.int64) + 1000 * seed)


def make_job(
    objective: dict[str, Any] | None = None,
    *,
    n: int = 90,
    teacher: bool = False,
    model: dict[str, Any] | None = None,
    **training: Any,
) -> Job:
    """teacher: an untrained one, and where the objective asks for it a second."""
    settings = {"epochs": 2, "batch": 16, "lr": 0.1, "select_examples": 32} | training
    chosen = objectives.build(objective or {"name": "pgd_at", "attack": {"name": "pgd", "steps": 2}}, "objective")
    return Job(
        model=models.build(replace(SPEC, model=model or SPEC.model), 0, "student"),
        objective=chosen,
        train=toy(n),
        val=toy(40, seed=1),
        threat=THREAT,
        training=Training(**settings),
        seed=3,
        teacher=Teacher(models.build(SPEC, 1, "teacher")) if teacher else None,
        clean_teacher=Teacher(models.build(SPEC, 1, "clean teacher")) if chosen.needs_clean_teacher else None,
    )
