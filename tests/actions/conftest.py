"""A real MLflow on SQLite, copied for each test; students that register in a moment; own code to be judged."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from judge_any import images, write_module
from linear_model import SHAPE, linear
from safetensors.numpy import save_file

from robustdistill.actions import judge_target
from robustdistill.actions.package import HASHED
from robustdistill.cli import main
from robustdistill.judge import autoattack
from robustdistill.services.mlflow_store import Store

CLASSES = ["cat", "dog", "eel"]


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


@pytest.fixture
def make_student(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """make_student(scale, robust=..., clean=..., classes=...) -> (export folder, score folder)."""

    def make(
        scale: float = 1.0, *, robust: float = 0.6, clean: float = 0.9, classes: list[str] = CLASSES
    ) -> tuple[Path, Path]:
        export, score = tmp_path / f"export-{scale}", tmp_path / f"score-{scale}"
        for folder in (export, score):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        onnx.save_model(linear(scale), str(export / "model.onnx"))
        save_file({"scale": np.full(3, scale, np.float32)}, str(export / "model.safetensors"))
        np.save(export / "trained_on.npy", np.array([7, 8, 9]))
        sha = {kind: hashlib.sha256((export / name).read_bytes()).hexdigest() for kind, name in HASHED.items()}
        spec = {"shape": SHAPE, "classes": len(classes), "low": 0.0, "high": 1.0}
        (export / "model.json").write_text(json.dumps({"spec": spec, "sha256": sha["safetensors"], "format": 1}))
        record = {"sha256": sha, "parameters": 21, "bytes": {}, "opset": 20, "classes": classes, "shape": SHAPE}
        (export / "export.json").write_text(json.dumps(record | {"low": 0.0, "high": 1.0}))
        card = {"subject": {"onnx_sha256": sha["onnx"]}, "threat": {"norm": "linf", "eps": 0.1}}
        card |= {"clean": {"accuracy": clean}, "robust": {"accuracy": robust}}
        card["per_class"] = [{"class": name} for name in classes]
        (score / "scorecard.json").write_text(json.dumps(card))
        return export, score

    return make


@pytest.fixture
def registered(store: Store, make_student: Callable[..., tuple[Path, Path]]) -> Callable[..., int]:
    """registered(scale, robust=...) -> the version of toy-candidates of that student."""
    from robustdistill.actions.register import register

    def make(scale: float = 1.0, **figures: Any) -> int:
        export, score = make_student(scale, **figures)
        run = store.create_run(store.experiment("toy"), "retrain", started=0.0, tags={})
        made = register(store, "toy", export=export, scorecard=score, parent_run=run, tags={}, description="a student")
        return made.version

    return make


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with own.py and test.npz in it; attacks are short: the model is linear."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("ROBUSTDISTILL_WORKSPACE", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(autoattack, "ITERATIONS", 10)
    monkeypatch.setattr(autoattack, "QUERIES", 30)
    monkeypatch.setattr(judge_target, "command", lambda *_: None)  # a fresh process takes seconds; one test has it
    write_module(tmp_path, "own")
    x, y = images()
    np.savez("test.npz", images=x, labels=y)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


@pytest.fixture
def judge(here: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """judge(TARGET, ...) -> exit code, stdout, stderr; on test.npz under linf:0.1 unless said otherwise."""

    def run(target: str, *options: str, data: str | None = "test.npz", threat: str | None = "linf:0.1") -> Any:
        given = [*(["--data", data] if data else []), *(["--threat", threat] if threat else []), *options]
        with pytest.raises(SystemExit) as caught:
            main(["judge", target, *given])
        return int(caught.value.code or 0), *capsys.readouterr()

    return run
