"""The result of an evaluation as files: deterministic bytes, read by the gate, the report and DVC's metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustdistill.data.files import write_json, write_npy
from robustdistill.gate.scorecard import SCHEMA
from robustdistill.gate.statistics import wilson
from robustdistill.judge import metrics
from robustdistill.judge.curve import Curve
from robustdistill.judge.health.check import Check
from robustdistill.judge.subject import predictions
from robustdistill.judge.trial import Row, Trial

Flags = NDArray[np.bool_]


def interval(right: Flags, confidence: float = 0.95) -> dict[str, float]:
    """Accuracy with Wilson's interval."""
    lower, upper = wilson(int(right.sum()), len(right), confidence)
    return {"accuracy": float(right.mean()), "lower": lower, "upper": upper}


def card(trial: Trial, curve: Curve, health: list[Check], classes: list[str]) -> dict[str, Any]:
    """The scorecard as plain data. Clean figures are those of the exported file, which is what is served."""
    sample, labels = trial.sample, trial.sample.labels
    logits = trial.subject.served(sample.x)
    answers = predictions(logits)
    right = answers == labels
    robust = np.all([right, *(row.right for row in trial.rows)], axis=0)
    return {
        "schema": SCHEMA,
        "subject": trial.subject.about,
        "threat": trial.threat.record(),
        "sample": {
            "n": len(sample),
            "digest": sample.digest(),
            "chunk": trial.chunk,
            "split": "test",
            "trained_on": sample.known,
        },
        "clean": interval(right) | metrics.macro(labels, answers, len(classes)),
        "per_class": (rows := metrics.per_class(labels, right, robust, classes)),
        "worst_class": metrics.worst_class(rows),
        "attacks": [_attack(row) for row in trial.rows],
        "robust": interval(robust),
        "curve": [
            {"factor": point.factor, "eps": point.eps, "accuracy": point.accuracy, "n": point.n}
            for point in curve.points
        ],
        "calibration": metrics.calibration(labels, metrics.softmax(logits)),
        "health": [check.to_json() for check in health],
    }


def _attack(row: Row) -> dict[str, Any]:
    figures = {"parts": row.parts, "note": row.note, "replayed_only": row.replayed_only}
    return {"name": row.name, **interval(row.right), **figures}


def flat(card: dict[str, Any]) -> dict[str, float]:
    """The figures by which DVC compares versions."""
    found = {
        "clean": card["clean"]["accuracy"],
        "robust": card["robust"]["accuracy"],
        "f1": card["clean"]["f1"],
        "worst_class": card["worst_class"]["robust"]["accuracy"],
        "worst_class_clean": card["worst_class"]["clean"]["accuracy"],
        "parameters": card["subject"]["parameters"],
        "health_errors": sum(not item["ok"] and item["level"] == "error" for item in card["health"]),
        **card["calibration"],
    }
    if block := card.get("agreement"):
        found |= {f"agreement_{name}": block[name]["same"] for name in ("clean", "attacked")}
    return found | {attack["name"]: attack["accuracy"] for attack in card["attacks"]}


def write(out: Path, trial: Trial, card: dict[str, Any]) -> None:
    """All files of a score; scorecard.json last, so that its presence means the rest is there."""
    outcomes = out / "outcomes"
    outcomes.mkdir(parents=True, exist_ok=True)
    for row in trial.rows:
        write_npy(outcomes / f"{row.name}.npy", row.right)
    write_npy(out / "ids.npy", trial.sample.ids)
    write_npy(out / "labels.npy", trial.sample.labels)
    write_npy(out / "predictions.npy", predictions(trial.subject.served(trial.sample.x)))
    write_npy(out / "x_adv.npy", trial.worst.cpu().numpy())
    lines = ["factor,eps,accuracy,n"]
    lines += [f"{p['factor']:g},{p['eps']:.9g},{p['accuracy']:.6g},{p['n']}" for p in card["curve"]]
    (out / "curve.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_json(out / "metrics.json", flat(card))
    write_json(out / "scorecard.json", card)
