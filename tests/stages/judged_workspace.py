"""Prepared data and an untrained model on disk, for the stages that need no training."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robustdistill import recipes
from robustdistill.config import Judge, Params
from robustdistill.data.files import write_npy
from robustdistill.data.prepared import Manifest
from robustdistill.engine.devices import Compute
from robustdistill.journal import Journal
from robustdistill.models import ModelSpec, build, weights
from robustdistill.stages.tools import Tools

CLASSES = ["one", "two", "three", "four"]
SHAPE = (1, 8, 8)


def params() -> Params:
    judge = Judge(examples=20, attacks=[{"name": "fgsm"}], chunk=20, curve=[1.0], curve_examples=10, autoattack="none")
    return recipes.load("digits").params.model_copy(update={"judge": judge})


def prepared(folder: Path, n: int = 30) -> Path:
    folder.mkdir()
    for number, split in enumerate(("train", "val", "test")):
        random = np.random.default_rng(number)
        arrays = {
            "x": random.integers(0, 256, (n, *SHAPE)).astype(np.uint8),
            "y": np.arange(n, dtype=np.int64) % 4,
            "id": random.permutation(1000).astype(np.int64)[:n] * 3 + number,
        }
        for part, array in arrays.items():
            write_npy(folder / f"{split}_{part}.npy", array)
    counts = {split: np.bincount(np.arange(n) % 4).tolist() for split in ("train", "val", "test")}
    Manifest("image", SHAPE, CLASSES, 0.0, 1.0, (0.5,), (0.3,), counts, {}, "digest").write(folder)
    return folder


def model(folder: Path) -> Path:
    folder.mkdir()
    spec = ModelSpec({"name": "small_cnn", "size": "nano"}, SHAPE, 4, 0.0, 1.0, (0.5,), (0.3,))
    weights.save(build(spec, 0, "initial"), folder)
    return folder


def tools(root: Path, stage: str) -> Tools:
    return Tools(Compute("cpu", 1), Journal(root / "journal.jsonl", stage), root / "scratch")
