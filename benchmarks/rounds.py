"""Trainings on noise, timed epoch by epoch: what the benchmarks of speed share. Time does not depend on the images."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from robustdistill.engine.devices import Compute
from robustdistill.journal import Journal
from robustdistill.rng import Draws
from robustdistill.training import Job, fit


@dataclass(frozen=True)
class Noise:
    """x: uint8 [N, *shape]. y, id: int64 [N]."""

    x: np.ndarray
    y: np.ndarray
    id: np.ndarray


def noise(count: int, shape: tuple[int, ...]) -> Noise:
    pixels = [Draws(k).permutation(int(np.prod(shape)), "noise") % 256 for k in range(count)]
    x = np.stack(pixels).astype(np.uint8).reshape(count, *shape)
    index = np.arange(count, dtype=np.int64)
    return Noise(x, index % 10, index)


@dataclass(frozen=True)
class Watch(Journal):
    """A journal that notes when each epoch ended."""

    clock: Callable[[], float] = time.process_time
    ends: list[float] = field(default_factory=list)

    def write(self, event: str, **fields: Any) -> None:
        if event == "epoch":
            self.ends.append(self.clock())


@dataclass(frozen=True)
class Tools:
    compute: Compute
    journal: Watch
    scratch: Path
    debug: bool = False


@dataclass(frozen=True)
class Timed:
    """Seconds of a training, and of each of its epochs but the first and the last, which holds the validation.

    files: what it left in its scratch folder."""

    whole: float
    epochs: list[float]
    files: list[str]


def train(job: Job, compute: Compute, clock: Callable[[], float]) -> Timed:
    with tempfile.TemporaryDirectory() as folder:
        watch = Watch(Path(folder) / "journal", "student", clock)
        began = clock()
        fit(job, Tools(compute, watch, Path(folder)))
        whole = clock() - began
        files = [file.name for file in Path(folder).iterdir()]
    return Timed(whole, [end - start for start, end in pairwise(watch.ends[:-1])], files)


def clock_of(device: str) -> Callable[[], float]:
    """Seconds of this process on the CPU, where others may use the machine, too; of the wall on a GPU."""
    return time.process_time if device == "cpu" else time.perf_counter
