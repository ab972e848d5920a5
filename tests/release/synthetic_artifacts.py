"""The artifacts of a run in small: digits, two linear models attacked exactly, files as the stages write them."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits

from robustdistill.gate.statistics import wilson

MODELS = ("initial", "teacher", "control", "student")
SIZES = {"initial": 240_010, "teacher": 240_010, "control": 9_034, "student": 9_034}
EPS = 0.1
N = 160


def build(
    root: Path, models: Sequence[str] = MODELS, classes: Sequence[str] | None = None, shape: tuple[int, ...] = (1, 8, 8)
) -> Path:
    names = list(classes or (str(k) for k in range(10)))
    data = load_digits()
    x, y = np.rint(data.images / 16 * 255).astype(np.uint8).reshape(-1, *shape), data.target.astype(np.int64)
    prepare = root / "prepare"
    prepare.mkdir(parents=True)
    np.save(prepare / "test_x.npy", x[1000:1300])
    np.save(prepare / "test_y.npy", y[1000:1300])
    np.save(prepare / "test_id.npy", np.arange(1300, 1000, -1) * 7)
    manifest = {"shape": list(shape), "classes": names, "low": 0.0, "high": 1.0, "data_digest": "d1a" * 10}
    (prepare / "manifest.json").write_text(json.dumps(manifest))
    flat, labels = x[:1000].reshape(1000, -1) / 255.0, y[:1000]
    for at, name in enumerate(models):
        weights = _fragile(flat, labels) if name == "initial" else _steady(flat, labels, at)
        _export(root / "export" / name, name, weights, shape)
        _history(root / name, name)
        _score(root / "score" / name, name, weights, x[1000 : 1000 + N], y[1000 : 1000 + N], names)
    return root


def _fragile(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least squares: accurate, with large weights."""
    design = np.hstack([x, np.ones((len(x), 1))])
    solution = np.linalg.solve(design.T @ design + 0.05 * np.eye(65), design.T @ np.eye(10)[y]) * 12
    return solution[:-1].T, solution[-1]


def _steady(x: np.ndarray, y: np.ndarray, blur: int) -> tuple[np.ndarray, np.ndarray]:
    """Nearest class mean."""
    means = np.stack([x[y == k][: 120 - 12 * blur].mean(0) for k in range(10)])
    return 2 * means, -(means**2).sum(1)


def _export(folder: Path, name: str, weights: tuple[np.ndarray, np.ndarray], shape: tuple[int, ...]) -> None:
    folder.mkdir(parents=True)
    w, b = (numpy_helper.from_array(a.astype(np.float32), n) for a, n in zip(weights, "wb", strict=True))
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("Gemm", ["f", "w", "b"], ["logits"], transB=1)]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *shape])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])
    graph = helper.make_graph(nodes, "linear", [x], [logits], [w, b])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    record = {"parameters": SIZES[name], "bytes": {"onnx": 4 * SIZES[name] + 900, "safetensors": 4 * SIZES[name]}}
    (folder / "export.json").write_text(json.dumps(record))


def _history(folder: Path, name: str) -> None:
    folder.mkdir(parents=True)
    with (folder / "history.csv").open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["epoch", "step", "lr", "loss", "ce", "val_clean", "val_pgd"])
        for epoch in range(1, 13):
            rise = 1 - 0.6**epoch
            robust = "" if epoch % 2 else f"{(0.05 if name == 'initial' else 0.7) * rise:.4f}"
            writer.writerow([epoch, 40 * epoch, 0.01, f"{2.3 * 0.75**epoch:.4f}", "", f"{0.95 * rise:.4f}", robust])
    alarms = [{"message": "validation accuracy under PGD fell"}] if name == "control" else []
    summary = {"parameters": SIZES[name], "best_epoch": 10, "alarms": alarms}
    (folder / "summary.json").write_text(json.dumps(summary))


def _attack(
    x: np.ndarray, y: np.ndarray, weights: tuple[np.ndarray, np.ndarray], eps: float
) -> tuple[np.ndarray, np.ndarray]:
    """The exact worst case of a linear model in the linf ball, snapped to 8 bits. (x_adv uint8, still right)"""
    w, b = weights
    unit = x.reshape(len(x), -1) / 255.0
    best, margin = x.copy(), np.full(len(x), np.inf)
    for k in range(10):
        step = np.trunc(eps * 255) * np.sign(w[k][None] - w[y])
        moved = np.clip(unit * 255 + step, 0, 255)
        logits = moved / 255 @ w.T + b
        gap = np.where(y == k, np.inf, logits[np.arange(len(x)), y] - logits[:, k])
        best = np.where((gap < margin).reshape(-1, *(1,) * (x.ndim - 1)), np.rint(moved).reshape(x.shape), best)
        margin = np.minimum(gap, margin)
    return best.astype(np.uint8), margin > 0


def _figure(flags: np.ndarray) -> dict[str, float]:
    low, high = wilson(int(flags.sum()), len(flags))
    return {"accuracy": float(flags.mean()), "lower": low, "upper": high}


def _score(
    folder: Path, name: str, weights: tuple[np.ndarray, np.ndarray], x: np.ndarray, y: np.ndarray, names: list[str]
) -> None:
    (folder / "outcomes").mkdir(parents=True)
    predictions = np.argmax(x.reshape(len(x), -1) / 255.0 @ weights[0].T + weights[1], axis=1)
    clean = predictions == y
    x_adv, robust = _attack(x, y, weights, EPS)
    robust &= clean
    outcomes = {"fgsm": robust | (clean & (np.arange(len(x)) % 4 == 0)), "autoattack": robust}
    vectors = {"ids": np.arange(1300, 1300 - N, -1) * 7, "labels": y, "predictions": predictions, "x_adv": x_adv}
    for stem, values in vectors.items():
        np.save(folder / f"{stem}.npy", values)
    for attack, flags in outcomes.items():
        np.save(folder / "outcomes" / f"{attack}.npy", flags)
    (folder / "scorecard.json").write_text(json.dumps(_card(name, y, clean, robust, outcomes, names)))
    with (folder / "curve.csv").open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["factor", "eps", "accuracy", "n"])
        for factor in (0.25, 0.5, 1.0, 1.5, 2.0):
            share = (_attack(x, y, weights, EPS * factor)[1] & clean)[:100].mean()
            writer.writerow([factor, f"{EPS * factor:.6g}", f"{share:.6f}", 100])


def _card(
    name: str, y: np.ndarray, clean: np.ndarray, robust: np.ndarray, outcomes: dict[str, np.ndarray], names: list[str]
) -> dict[str, Any]:
    rows = []
    for k, label in enumerate(names[:10]):
        mine = y == k
        rows.append({"class": label, "n": int(mine.sum()), "clean": clean[mine].mean(), "robust": robust[mine].mean()})
    quiet = {"name": "order", "ok": True, "level": "error", "sentence": "attacks are ordered"}
    loud = {"name": "gap", "ok": False, "level": "warning", "sentence": "PGD and AutoAttack differ by 6 points"}
    return {
        "schema": 1,
        "subject": {"sha256": f"{name}-sha", "onnx_sha256": "o", "parameters": SIZES[name], "access": "gradient"},
        "threat": {"norm": "linf", "eps": EPS, "low": 0.0, "high": 1.0},
        "sample": {"n": len(y), "digest": "s", "chunk": 250, "split": "test"},
        "clean": _figure(clean),
        "robust": _figure(robust),
        "per_class": rows,
        "attacks": [
            {"name": attack, "note": "stands in for it" if attack == "autoattack" else "", **_figure(flags)}
            for attack, flags in outcomes.items()
        ],
        "curve": [],
        "health": [quiet, loud] if name == "control" else [quiet],
    }
