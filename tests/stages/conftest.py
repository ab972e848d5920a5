"""A stage of the toy chain, run from a clean folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from learner_toys import Stage, write_prepared

from robustdistill.config import Params
from robustdistill.engine.devices import Compute
from robustdistill.journal import Journal
from robustdistill.stages.tools import Tools


@pytest.fixture
def reads(tmp_path: Path) -> dict[str, Path]:
    write_prepared(tmp_path / "prepare")
    folder = tmp_path / "adversaries"
    folder.mkdir()
    np.save(folder / "train_x_adv.npy", np.load(tmp_path / "prepare/train_x.npy") ^ 8)
    np.save(folder / "train_id.npy", np.load(tmp_path / "prepare/train_id.npy"))
    (tmp_path / "teacher.pin.json").write_text(json.dumps({"sha256": None, "role": None, "origin": None}))
    pin = tmp_path / "teacher.pin.json"
    made = {name: tmp_path / name for name in ("prepare", "initial", "teacher")}
    return {**made, "adversaries": folder, "pin": pin}


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    return Tools(Compute("cpu", 1), Journal(tmp_path / "journal.jsonl", "test"), tmp_path / "scratch")


@pytest.fixture
def stage(reads: dict[str, Path], tools: Tools, tmp_path: Path) -> Stage:
    """Runs a stage from a clean folder, as the command does."""

    def run(module: Any, params: Params, name: str) -> Path:
        out = tmp_path / name
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        module.run(params, reads, out, tools)
        return out

    return run
