"""A real MLflow on SQLite, migrated once and copied for each test, and students that register in a moment."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

from robustdistill.actions.package import HASHED
from robustdistill.services.mlflow_store import Store

SHAPE, CLASSES = (1, 2, 3), ["cat", "dog", "eel"]


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("template")
    Store.open(f"sqlite:///{work / 'mlflow.db'}", work)
    return work / "mlflow.db"


@pytest.fixture
def work(tmp_path: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace's .work folder with an empty, migrated store."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / ".work"
    folder.mkdir()
    shutil.copyfile(migrated, folder / "mlflow.db")
    return folder


@pytest.fixture
def store(work: Path) -> Store:
    return Store.open(None, work)


def linear(scale: float) -> onnx.ModelProto:
    """logits = scale * W x + b on flattened inputs [B, 1, 2, 3]."""
    weight = scale * np.arange(18, dtype=np.float32).reshape(6, 3) / 18
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["x"], ["flat"], axis=1),
            helper.make_node("Gemm", ["flat", "weight", "bias"], ["logits"]),
        ],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *SHAPE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(np.array([0.1, 0.2, 0.3], np.float32), "bias"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.fixture
def make_student(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """make_student(scale, robust=..., clean=...) -> (export folder, score folder)."""

    def make(scale: float = 1.0, *, robust: float = 0.6, clean: float = 0.9) -> tuple[Path, Path]:
        export, score = tmp_path / f"export-{scale}", tmp_path / f"score-{scale}"
        for folder in (export, score):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        onnx.save_model(linear(scale), str(export / "model.onnx"))
        save_file({"scale": np.full(3, scale, np.float32)}, str(export / "model.safetensors"))
        np.save(export / "trained_on.npy", np.array([7, 8, 9]))
        sha = {kind: hashlib.sha256((export / name).read_bytes()).hexdigest() for kind, name in HASHED.items()}
        (export / "model.json").write_text(json.dumps({"spec": {}, "sha256": sha["safetensors"], "format": 1}))
        record = {"sha256": sha, "parameters": 21, "bytes": {}, "opset": 20, "classes": CLASSES, "shape": SHAPE}
        (export / "export.json").write_text(json.dumps(record | {"low": 0.0, "high": 1.0}))
        card = {"subject": {"onnx_sha256": sha["onnx"]}, "threat": {"norm": "linf", "eps": 0.1}}
        card |= {"clean": {"accuracy": clean}, "robust": {"accuracy": robust}}
        (score / "scorecard.json").write_text(json.dumps(card))
        return export, score

    return make


@pytest.fixture
def registered(store: Store, make_student: Callable[..., tuple[Path, Path]]) -> Callable[..., int]:
    """registered(scale, robust=...) -> the version of toy-candidates of that student."""
    from robustdistill.actions.register import register

    def make(scale: float = 1.0, **figures: float) -> int:
        export, score = make_student(scale, **figures)
        run = store.create_run(store.experiment("toy"), "retrain", started=0.0, tags={})
        made = register(store, "toy", export=export, scorecard=score, parent_run=run, tags={}, description="a student")
        return made.version

    return make
