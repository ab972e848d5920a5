"""Equal budgets: CPU seconds of attack and update, turned into examples by a measured rate, so that the schedule ends
where the budget does. Validation is not charged; filling the cache of the teacher's answers is."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from robustdistill.data.files import write_json
from robustdistill.data.prepared import Split
from robustdistill.engine.devices import Compute
from robustdistill.journal import Journal
from robustdistill.objectives.types import Sees
from robustdistill.rng import Draws, derive
from robustdistill.stages.tools import Tools
from robustdistill.training import Job, fit
from robustdistill.training.feed import Feed
from robustdistill.training.teacher_cache import ask
from robustdistill.training.validation import Validation

PILOT_BATCHES, PILOT_EPOCHS = 12, 4
LEAST_PASSES = 0.1  # of the data: a method too slow for its budget still takes some steps

JobOf = Callable[[Split, int], Job]  # training examples, epochs


@dataclass
class Clock:
    """Process CPU seconds without those of validation. file: keeps them for a run that is killed and goes on."""

    file: Path | None = None
    before: float = 0.0
    parts: int = 1  # processes that have worked on it
    excluded: float = 0.0
    begun: float = field(default_factory=time.process_time)

    @classmethod
    def at(cls, file: Path) -> Clock:
        if not file.is_file():
            return cls(file)
        known = json.loads(file.read_text(encoding="utf-8"))
        return cls(file, known["seconds"], known["parts"] + 1)

    @property
    def seconds(self) -> float:
        return self.before + time.process_time() - self.begun - self.excluded

    def keep(self) -> None:
        if self.file is not None:
            write_json(self.file, {"seconds": self.seconds, "parts": self.parts})

    @contextmanager
    def without_validation(self) -> Iterator[None]:
        measure = Validation.measure

        def timed(validation: Validation, *given: Any) -> Any:
            begun = time.process_time()
            found = measure(validation, *given)
            self.excluded += time.process_time() - begun
            return found

        Validation.measure = timed  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            Validation.measure = measure  # type: ignore[method-assign]


@dataclass(frozen=True)
class Watch(Journal):
    """A journal that keeps the clock whenever it hears of progress, and notes when each epoch ended."""

    clock: Clock = field(default_factory=Clock)
    ends: list[float] = field(default_factory=list)

    def write(self, event: str, **fields: Any) -> None:
        if event in ("epoch", "progress"):
            self.clock.keep()
        if event == "epoch":
            self.ends.append(self.clock.seconds)
        if self.path.name:
            super().write(event, **fields)


def measured(job_of: JobOf, train: Split, val: Split, batch: int, compute: Compute) -> tuple[float, float]:
    """Examples a second of attack and update, and seconds for each answer of the teacher that is cached."""
    part = _at(train, np.arange(min(len(train), PILOT_BATCHES * batch)))
    with tempfile.TemporaryDirectory() as folder:
        watch = Watch(Path(), "pilot")
        job = replace(job_of(part, PILOT_EPOCHS), val=_at(val, np.arange(min(8, len(val)))))
        with watch.clock.without_validation():
            fit(job, Tools(compute, watch, Path(folder)))
    rate = len(part) * (PILOT_EPOCHS - 1) / (watch.ends[-1] - watch.ends[0])
    cached = job.objective.teacher_sees is Sees.CLEAN and getattr(job.objective.config, "teacher_cache", "") == "auto"
    if job.teacher is None or not cached:
        return rate, 0.0
    begun = time.process_time()
    for _ in ask(job.teacher, Feed(part, job.model.spec, compute.device), PILOT_BATCHES, compute):
        pass
    return rate, (time.process_time() - begun) / len(part)


def examples_for(seconds: float, rate: float, answer: float, data: int) -> int:
    """How many examples are trained on within the seconds. answer: seconds for the teacher's answer to one of the
    `data`, asked once for each that is used."""
    within_one_pass = seconds / (answer + 1 / rate)
    if within_one_pass > data:
        return round((seconds - answer * data) * rate)
    return round(max(LEAST_PASSES * data, within_one_pass))


def sections(train: Split, examples: int, seed: int) -> tuple[Split, int]:
    """Data and epochs that together make `examples`: an epoch need not be one pass, so a budget is met exactly.

    The number of epochs is the nearest; within one, some examples are left out or come twice, drawn from the seed.
    Copies have ids of their own, so their attacks begin elsewhere.
    """
    n = len(train)
    epochs = max(1, round(examples / n))
    size = max(2, round(examples / epochs))
    draws = Draws(derive(seed, "study/sections"))
    passes = [draws.permutation(n, f"pass {number}") for number in range(-(-size // n))]
    chosen = np.concatenate(passes)[:size]
    copy = np.arange(size) // n
    part = _at(train, chosen)
    return replace(part, id=part.id + copy * np.int64(0x2545F4914F6CDD1)), epochs


def _at(split: Split, positions: np.ndarray) -> Split:
    return replace(split, x=np.asarray(split.x)[positions], y=split.y[positions], id=split.id[positions])
