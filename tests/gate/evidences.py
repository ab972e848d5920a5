"""Evidence for tests of the gate: made from flags in memory, or written as the judge writes it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robustdistill.config import Policy, options
from robustdistill.gate.scorecard import Evidence

THREAT = {"norm": "linf", "eps": 0.1, "low": 0.0, "high": 1.0}
CLASSES = 3


def card(labels: np.ndarray, clean: np.ndarray, robust: np.ndarray, names: Sequence[str], sha: str) -> dict[str, Any]:
    rows = [
        {
            "class": f"c{k}",
            "n": int(np.sum(labels == k)),
            "clean": float(clean[labels == k].mean()) if np.any(labels == k) else 0.0,
            "robust": float(robust[labels == k].mean()) if np.any(labels == k) else 0.0,
        }
        for k in range(CLASSES)
        if np.any(labels == k)
    ]
    return {
        "schema": 1,
        "subject": {"sha256": sha, "onnx_sha256": f"onnx-{sha}", "parameters": 9_000, "access": "gradient"},
        "threat": dict(THREAT),
        "sample": {"n": len(labels), "digest": "d", "chunk": 250, "split": "test"},
        "clean": {"accuracy": float(clean.mean())},
        "robust": {"accuracy": float(robust.mean())},
        "per_class": rows,
        "attacks": [{"name": name} for name in names],
        "health": [{"name": "order", "ok": True, "level": "error", "sentence": "attacks are ordered"}],
    }


def evidence(
    robust: Sequence[bool], clean: Sequence[bool] | None = None, *, sha: str = "s", start: int = 0
) -> Evidence:
    """robust [N], clean [N] (default: all right). FGSM breaks every second of what is broken, PGD all of it."""
    worst = np.array(robust, dtype=bool)
    right = np.ones_like(worst) if clean is None else np.array(clean, dtype=bool) | worst
    labels = np.arange(len(worst)) % CLASSES
    predictions = np.where(right, labels, (labels + 1) % CLASSES)
    fgsm = worst | ((np.arange(len(worst)) % 2 == 0) & right)
    ids = np.arange(start, start + len(worst))
    outcomes = {"fgsm": fgsm, "pgd": worst}
    return Evidence(card(labels, right, worst, list(outcomes), sha), ids, labels, predictions, outcomes)


def write(found: Evidence, folder: Path) -> Path:
    (folder / "outcomes").mkdir(parents=True)
    (folder / "scorecard.json").write_text(json.dumps(found.card))
    for stem in ("ids", "labels", "predictions"):
        np.save(folder / f"{stem}.npy", getattr(found, stem))
    for name, flags in found.outcomes.items():
        np.save(folder / "outcomes" / f"{name}.npy", flags)
    return folder


def policy(**changes: Any) -> Policy:
    base: dict[str, Any] = {
        "teacher": {"clean": 0.5, "robust": 0.3},
        "student": {"clean": 0.5, "robust": 0.3},
        "champion": {"clean": 0.02, "robust": 0.02},
        "best": {"clean": 0.03, "robust": 0.03},
    }
    return options(Policy, base | changes, where="test")
