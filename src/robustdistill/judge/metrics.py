"""Figures from labels, predictions and probabilities; numpy only, no opinion."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 15  # of the reliability diagram behind the ECE

Flags = NDArray[np.bool_]
Ints = NDArray[np.int64]


def softmax(logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """[B, C] → probabilities [B, C]; all alike where a logit is not a number, or the largest is not finite."""
    logits = np.where(np.isfinite(logits.max(axis=1, keepdims=True)), logits, 0.0)
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), dtype=np.float64)


def macro(labels: Ints, predictions: Ints, classes: int) -> dict[str, float]:
    """Precision, recall and F1, each the mean over the classes that occur as label or prediction; 0/0 counts as 0.

    A prediction of −1 stands for no answer.
    """
    table = np.zeros((classes, classes + 1))
    np.add.at(table, (labels, predictions), 1)  # −1 is the last column
    hits, true, claimed = np.diag(table), table.sum(1), table.sum(0)[:classes]
    present = (true + claimed) > 0
    figures = {"precision": hits / np.maximum(claimed, 1), "recall": hits / np.maximum(true, 1)}
    figures["f1"] = 2 * hits / np.maximum(true + claimed, 1)
    return {name: float(values[present].mean()) for name, values in figures.items()}


def per_class(labels: Ints, clean: Flags, robust: Flags, names: list[str]) -> list[dict[str, Any]]:
    """Clean and robust accuracy of each class, 0 for one without examples."""
    rows = []
    for number, name in enumerate(names):
        mine = labels == number
        n = int(mine.sum())
        share = [float(flags[mine].mean()) if n else 0.0 for flags in (clean, robust)]
        rows.append({"class": name, "n": n, "clean": share[0], "robust": share[1]})
    return rows


def worst_class(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of `per_class`: the class with the lowest "clean" and with the lowest "robust" accuracy, and its n.

    As in the gate, a class without examples counts as 0.
    """
    found = {name: min(rows, key=lambda row: (row[name], row["class"])) for name in ("clean", "robust")}
    return {name: {"class": row["class"], "n": row["n"], "accuracy": row[name]} for name, row in found.items()}


def calibration(labels: Ints, probabilities: NDArray[np.float64]) -> dict[str, float]:
    """Expected calibration error (Guo et al. 2017, eq. 3; 15 equal bins) and Brier score (sum over classes)."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = [abs((right[bins == b].astype(float) - confidence[bins == b]).sum()) for b in range(BINS)]
    truth = np.eye(probabilities.shape[1])[labels]
    return {
        "ece": round(float(sum(gaps) / len(labels)), 6),
        "brier": round(float(((probabilities - truth) ** 2).sum(1).mean()), 6),
    }
