"""The identity of a job: two jobs with the same one do the same arithmetic, so one may go on from the other."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
from torch import nn

from robustdistill.config import dump
from robustdistill.training.job import Job


def identity(job: Job) -> str:
    """A hash of all that a training depends on but the machine: settings, examples, first weights, teachers."""
    config = getattr(job.objective, "config", None)
    settings = {
        "model": job.model.spec.to_json(),
        "objective": [type(job.objective).__name__, None if config is None else dump(config)],
        "threat": job.threat.to_json(),
        "training": dump(job.training),
        "seed": job.seed,
        "stored": None if job.stored is None else [job.stored.use, job.stored.share],
    }
    digest = hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=16)
    for split in (job.train, job.val):
        add_array(digest, split.id)
        add_array(digest, split.y)
    if job.stored is not None:
        add_array(digest, job.stored.id)
    for module in (job.model, job.objective, job.teacher.model if job.teacher else None):
        add_weights(digest, module)
    if job.clean_teacher is not None:
        digest.update(b"clean teacher")
        add_weights(digest, job.clean_teacher.model)
    return digest.hexdigest()


def add_array(digest: Any, array: np.ndarray) -> None:
    """Shape, type and content of an array into a hash that is being made."""
    digest.update(f"{array.shape}{array.dtype}".encode())
    digest.update(np.ascontiguousarray(array).tobytes())


def add_weights(digest: Any, module: nn.Module | None) -> None:
    """Names and values of all that a module's state holds, likewise."""
    for name, tensor in module.state_dict().items() if module else ():
        digest.update(name.encode())
        add_array(digest, tensor.detach().cpu().numpy())
