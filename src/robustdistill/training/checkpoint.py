"""Exact checkpoints: everything the next step depends on, so that a killed run ends bit-equal to one that was not.

Two files: `state-<step>.safetensors`, then `checkpoint.json`, which names it by hash and ends with a hash of itself.
The JSON is replaced in one move, so there is always a whole checkpoint or none; draws need no state (rng.py).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robustdistill.engine.devices import Compute, require_device
from robustdistill.errors import BadInput
from robustdistill.models.weights import digest, read_tensors, write_tensors
from robustdistill.workspace import write_atomically

FORMAT = 3
SECONDS = 2.0  # between two checkpoints, at least
SHARE = 0.04  # of the time, at most
INDEX = "checkpoint.json"


@dataclass(frozen=True)
class Saved:
    """record: JSON (step, history, …). tensors: weights, averages, momenta."""

    record: dict[str, Any]
    tensors: dict[str, Tensor]


def plan(compute: Compute) -> dict[str, Any]:
    """The numeric plan: what must be equal for bit-equal results."""
    return compute.to_json() | {"torch": torch.__version__}


class Checkpoints:
    """Writes at most so often that it costs SHARE of the time, and not before SECONDS have passed.

    When a checkpoint is written changes no result, so here, and only here, a clock may decide.
    """

    def __init__(self, folder: Path, job: str, compute: Compute) -> None:
        self.folder, self._job, self._plan = folder, job, plan(compute)
        self._seconds, self._share = SECONDS, SHARE
        self._written, self._cost = time.monotonic(), 0.0

    @property
    def present(self) -> bool:
        """Whether there is something by the name of a checkpoint, of use or not."""
        return (self.folder / INDEX).exists()

    def due(self) -> bool:
        return time.monotonic() - self._written >= max(self._seconds, self._cost / self._share)

    def write(self, record: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Raises OSError that names the file (a full disk); the checkpoint before it then stays."""
        began = time.monotonic()
        self.folder.mkdir(parents=True, exist_ok=True)
        state = self.folder / f"state-{record['step']}.safetensors"
        write_tensors(tensors, state)
        index = {"format": FORMAT, "job": self._job, "plan": self._plan, "state": state.name, "sha256": digest(state)}
        index["record"] = dict(record)
        write_atomically(self.folder / INDEX, json.dumps(index | {"seal": _seal(index)}))
        for old in _states(self.folder):
            if old != state:
                old.unlink(missing_ok=True)
        self._written = time.monotonic()
        self._cost = self._written - began

    def read(self) -> Saved | None:
        """The last whole checkpoint of this very job, or None: a damaged or foreign one only costs time."""
        index = read_index(self.folder)
        if index is None or index.get("job") != self._job:
            return None
        state = self.folder / index["state"]
        if not state.is_file() or digest(state) != index["sha256"]:
            return None
        return Saved(index["record"], read_tensors(state))


def delete(folder: Path) -> None:
    """All checkpoints of a folder, half-written ones included: the index first, so that no half remains in use."""
    (folder / INDEX).unlink(missing_ok=True)
    for file in [*_states(folder), *folder.glob(".*.part")]:
        file.unlink(missing_ok=True)


def _states(folder: Path) -> list[Path]:
    return list(folder.glob("state-*.safetensors"))


def read_index(folder: Path) -> dict[str, Any] | None:
    """What checkpoint.json says; None if there is none, or it is not whole."""
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(index, dict) or index.get("format") != FORMAT or index.pop("seal", None) != _seal(index):
        return None
    return index


def _seal(index: Mapping[str, Any]) -> str:
    """Of what an index says: damage to it is found like damage to the tensors."""
    return hashlib.sha256(json.dumps(index, sort_keys=True).encode()).hexdigest()


def resumed_plan(folder: Path, job: str, compute: Compute) -> Compute:
    """The plan to go on with: that of the checkpoint, where there is one of this job.

    Raises BadInput where this machine or this version of torch cannot repeat its arithmetic.
    """
    index = read_index(folder)
    if index is None or index.get("job") != job:
        return compute
    saved = index["plan"]
    fix = f"go on where it began, or delete {folder} to train from the start"
    if saved["torch"] != torch.__version__:
        raise BadInput(
            f"the checkpoint was written by torch {saved['torch']} and this is {torch.__version__}: "
            "the result would not be the one of an uninterrupted run",
            where=str(folder),
            fix=fix,
        )
    if torch.device(saved["device"]).type != torch.device(compute.device).type:
        raise BadInput(
            f"the checkpoint was written on {saved['device']} and this run is on {compute.device}: "
            "the result would not be the one of an uninterrupted run",
            where=str(folder),
            fix=fix,
        )
    return Compute(require_device(saved["device"]), saved["threads"], saved["precision"])
