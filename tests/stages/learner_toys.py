"""Small params, data and imported models for the stages that end in a model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from robustdistill import models
from robustdistill.config import Params, options
from robustdistill.data.prepared import Manifest
from robustdistill.models import ModelSpec, weights
from robustdistill.rng import Draws

NANO = {"name": "small_cnn", "size": "nano"}
TRAINING = {"epochs": 2, "batch": 16, "lr": 0.05, "select_examples": 32}
ATTACK = {"name": "pgd", "steps": 2}
FILES = ["history.csv", "last.json", "last.safetensors", "model.json", "model.safetensors", "summary.json"]
Stage = Callable[..., Path]


def make_params(**changes: dict[str, Any]) -> Params:
    record: dict[str, Any] = {
        "name": "toy",
        "seed": 0,
        "threat": {"norm": "linf", "eps": 0.1},
        "data": {"source": "digits"},
        "initial": {"model": NANO, "objective": {"name": "ce"}, "training": TRAINING},
        "adversaries": {"attack": ATTACK},
        "teacher": {"model": NANO, "objective": {"name": "pgd_at", "attack": ATTACK}, "training": TRAINING},
        "student": {"model": NANO, "objective": {"name": "rslad", "attack": ATTACK}, "training": TRAINING},
        "control": {"objective": {"name": "pgd_at", "attack": ATTACK}},
        "judge": {"attacks": []},
    }
    for key, change in changes.items():
        record[key] = record[key] | change
    return options(Params, record, where="params.yaml")


def write_prepared(folder: Path, shape: tuple[int, ...] = (1, 8, 8), n: int = 60) -> None:
    folder.mkdir(parents=True)
    counts = {}
    for start, split in enumerate(("train", "val", "test")):
        size = n if split == "train" else 24
        y = np.arange(size, dtype=np.int64) % 2
        noise = np.stack(
            [Draws(start).permutation(int(np.prod(shape)), str(k)).reshape(shape) % 100 for k in range(size)]
        )
        np.save(folder / f"{split}_x.npy", (noise + 120 * y.reshape(-1, *[1] * len(shape))).astype(np.uint8))
        np.save(folder / f"{split}_y.npy", y)
        np.save(folder / f"{split}_id.npy", np.arange(size, dtype=np.int64) + 1000 * start)
        counts[split] = [int((y == 0).sum()), int((y == 1).sum())]
    flat = (0.4,) * shape[0], (0.25,) * shape[0]
    Manifest("image", shape, ["dark", "light"], 0.0, 1.0, *flat, counts, {}, "0" * 64).write(folder)


def summary(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "summary.json").read_text()))


def pin(
    reads: dict[str, Path], role: str, *, origin: str = "elsewhere", saw: list[int] | None = None, **changes: Any
) -> str:
    """Imports a model with a normalisation of its own, as `robustdistill teacher use` does. saw: content ids."""
    record = {"model": NANO, "shape": (1, 8, 8), "classes": 2, "low": 0.0, "high": 1.0, "mean": (0.1,), "std": (0.9,)}
    model = models.build(ModelSpec(**(record | changes)), 7, "foreign").eval()
    part = reads["pin"].parent / "part"
    part.mkdir()
    sha256 = weights.save(model, part)
    folder = reads["pin"].parent / "imports" / sha256
    folder.parent.mkdir(exist_ok=True)
    part.rename(folder)
    record = {"sha256": sha256, "role": role, "origin": origin}
    if saw is not None:
        np.save(folder / "ids.npy", np.array(saw, dtype=np.int64))
        digest = weights.digest(folder / "ids.npy")
        (folder / "ids.npy").rename(folder / f"{digest}.npy")
        record |= {"trained_on": digest, "unknown": []}
    reads["pin"].write_text(json.dumps(record))
    return sha256
