"""export: the weights go along unchanged beside the ONNX file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import judged_workspace as made
import numpy as np

from robustdistill.data.prepared import Prepared
from robustdistill.stages import export


def test_the_stage_writes_all_that_is_judged_and_served(tmp_path: Path) -> None:
    reads = {"prepare": made.prepared(tmp_path / "prepare"), "model": made.model(tmp_path / "model")}
    (tmp_path / "out").mkdir()
    export.run(made.params(), reads, tmp_path / "out", made.tools(tmp_path, "export@student"))
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"model.onnx", "model.safetensors", "model.json", "trained_on.npy", "export.json"}
    seen = [np.load(tmp_path / "prepare" / f"{split}_id.npy") for split in ("train", "val")]
    assert np.array_equal(np.load(tmp_path / "out" / "trained_on.npy"), np.unique(np.concatenate(seen)))
    record = json.loads((tmp_path / "out" / "export.json").read_text())
    assert (record["classes"], record["unknown"]) == (made.CLASSES, [])
    assert "resize" not in record
    copied = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert copied == (tmp_path / "model" / "model.safetensors").read_bytes()


def test_that_the_data_were_scaled_goes_along(tmp_path: Path) -> None:
    reads = {"prepare": made.prepared(tmp_path / "prepare"), "model": made.model(tmp_path / "model")}
    replace(Prepared.open(reads["prepare"]).manifest, resize=True).write(reads["prepare"])
    (tmp_path / "out").mkdir()
    export.run(made.params(), reads, tmp_path / "out", made.tools(tmp_path, "export@student"))
    assert json.loads((tmp_path / "out" / "export.json").read_text())["resize"] is True
