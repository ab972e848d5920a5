"""What the teacher says to each training example, computed once, for objectives that see of it only T(x).

An example has one appearance without augmentation and two where it is mirrored; shifts make too many to keep. The
answers lie beside the checkpoints: float32 [V, N, C], and a JSON that names what they were made from and their hash.
Anything else than exactly that is computed again, in the same batches, so that a resumed run is bit-equal.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustdistill.data.files import write_json, write_npy
from robustdistill.engine.devices import Compute
from robustdistill.journal import Journal
from robustdistill.models.weights import digest
from robustdistill.objectives.types import Sees, Teacher
from robustdistill.rng import Draws
from robustdistill.training.augment import mirrored
from robustdistill.training.checkpoint import plan
from robustdistill.training.feed import Feed
from robustdistill.training.identity import add_array, add_weights
from robustdistill.training.job import Job

FORMAT = 1
TABLE, INDEX = "teacher-logits.npy", "teacher-logits.json"
QUIET_SECONDS = 2.0  # what takes no longer needs no progress


class Answers:
    """table: float32 [V, N, C], usually mapped from disk; its second variant is of the mirrored examples."""

    def __init__(self, table: NDArray[np.float32], device: str) -> None:
        self.table, self._device = table, device

    def take(self, positions: Tensor, index: Tensor, draws: Draws) -> Tensor:
        """T(x) [B, C] of the examples at `positions` [B], as today's augmentation shows them."""
        variant: NDArray[np.int64] | int = mirrored(index, draws).long().cpu().numpy() if len(self.table) > 1 else 0
        return torch.from_numpy(np.array(self.table[variant, positions.cpu().numpy()])).to(self._device)


def opened(job: Job, feed: Feed, batches: int, compute: Compute, journal: Journal, folder: Path) -> Answers | None:
    """The teacher's answers, read from `folder` or computed into it; None where they are asked for at each step.

    batches: in which all of `feed` is answered. Raises OSError (a full disk).
    """
    if job.teacher is None or job.objective.teacher_sees is not Sees.CLEAN or not _wanted(job):
        return None
    obstacle = _obstacle(job)
    if obstacle is not None:
        journal.write("note", message=f"the teacher is asked at each step: {obstacle}")
        return None
    variants = 2 if "flip" in job.training.augment else 1
    key = _key(job, batches, variants, compute)
    table = _read(folder, key)
    if table is None:
        blocks = _appearances(job.teacher, feed, batches, variants, compute)
        table = _gather(blocks, batches * variants, journal).reshape(variants, len(feed), -1)
        _write(folder, key, table)
        table = _read(folder, key)
    assert table is not None, "a table that was just written"
    return Answers(table, compute.device)


def forget(folder: Path) -> None:
    """Deletes the kept answers of a folder: the index first, so that no half remains in use."""
    for name in (INDEX, TABLE, f".{INDEX}.new", f".{TABLE}.new"):
        (folder / name).unlink(missing_ok=True)


def ask(teacher: Teacher, feed: Feed, batches: int, compute: Compute, *, flip: bool = False) -> Iterator[Tensor]:
    """T(x) [B, C] of each batch of `feed`, in its order; of the mirrored images if flip."""
    for positions in np.array_split(np.arange(len(feed)), batches):
        x, _, _ = feed.take(torch.from_numpy(positions).to(compute.device))
        with compute.autocast():
            logits = teacher.logits(x.flip(3) if flip else x)
        yield logits.float().cpu()


def _appearances(teacher: Teacher, feed: Feed, batches: int, variants: int, compute: Compute) -> Iterator[Tensor]:
    for variant in range(variants):
        yield from ask(teacher, feed, batches, compute, flip=bool(variant))


def _gather(blocks: Iterator[Tensor], total: int, journal: Journal) -> NDArray[np.float32]:
    gathered, began = [], time.monotonic()
    told = began + QUIET_SECONDS
    for block in blocks:
        gathered.append(block.numpy())
        if time.monotonic() >= told:
            told = time.monotonic() + 1.0
            journal.progress(len(gathered), total, "batches answered by the teacher")
    return np.concatenate(gathered)


def _wanted(job: Job) -> bool:
    return getattr(job.objective.config, "teacher_cache", "never") == "auto"


def _obstacle(job: Job) -> str | None:
    if "shift" in job.training.augment:
        return "shifted images are too many to know all answers before"
    if job.stored is not None and job.stored.use == "replay":
        return "stored examples stand in for some of the data"
    return None


def _key(job: Job, batches: int, variants: int, compute: Compute) -> str:
    """A hash of all that the answers depend on: teacher, examples, appearances, numeric plan."""
    assert job.teacher is not None
    spec, teacher = job.model.spec, job.teacher.model
    of = getattr(teacher, "spec", None)
    settings = [FORMAT, batches, variants, spec.low, spec.high, plan(compute), None if of is None else of.to_json()]
    total = hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=16)
    add_array(total, job.train.x)
    add_weights(total, teacher)
    return total.hexdigest()


def _write(folder: Path, key: str, table: NDArray[np.float32]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_npy(folder / TABLE, table)
    write_json(folder / INDEX, {"key": key, "sha256": digest(folder / TABLE)})


def _read(folder: Path, key: str) -> NDArray[np.float32] | None:
    try:
        record = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        if record != {"key": key, "sha256": digest(folder / TABLE)}:
            return None
        table: NDArray[np.float32] = np.load(folder / TABLE, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return None
    return table
