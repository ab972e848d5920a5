"""Journal events as what MLflow keeps of a stage: metrics with one set of prefixes, alarms as tags, a status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from robustdistill.errors import OutOfTime
from robustdistill.services.mlflow_store import Measure

EPOCH_METRICS = {
    "loss": "train/loss",
    "lr": "lr",
    "val_clean": "val/clean",
    "val_pgd": "val/pgd",
    "seconds": "time/epoch_seconds",
}
SPENT = {"examples": "train/examples", "cpu_seconds": "time/train_cpu_seconds"}  # a whole training's
NOT_METRICS = {"t", "run", "stage", "event", "epoch", "epochs", "step"}


@dataclass
class News:
    """What the journal says of one stage since last time."""

    first: float
    last: float
    metrics: list[Measure] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    status: str | None = None
    worth_a_run: bool = False


def gather(records: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], News]:
    """(flow run, stage) -> its news, in the order of the journal."""
    found: dict[tuple[str, str], News] = {}
    for record in records:
        time_, event = float(record["t"]), record["event"]
        news = found.setdefault((record["run"], record["stage"]), News(time_, time_))
        news.last = time_
        news.worth_a_run |= event in ("start", "end", "failed", "epoch", "alarm")
        match event:
            case "start":
                news.status = "RUNNING"
            case "epoch":
                news.metrics += _epoch(record)
            case "trained":
                news.metrics += [Measure(key, float(record[field]), time_) for field, key in SPENT.items()]
            case "alarm":
                said = f"{record.get('message', '')} {record.get('advice', '')}".strip()
                news.tags[f"alarm.{key_of(record.get('kind', 'unknown'))}"] = said
            case "end":
                news.status = "FINISHED"
                news.metrics.append(Measure("time/seconds", float(record.get("seconds", 0.0)), time_))
            case "failed":
                news.status = "KILLED" if record.get("kind") == OutOfTime.kind else "FAILED"
                news.tags["robustdistill.error"] = str(record.get("error", ""))
    return found


def key_of(text: str) -> str:
    """A text as part of a metric's, a tag's or a file's name."""
    return "".join(letter if letter.isalnum() or letter in "_-." else "_" for letter in str(text))


def _epoch(record: Mapping[str, Any]) -> list[Measure]:
    """val/clean, val/pgd, train/loss, lr, and whatever else the objective reports as train/…; step is the epoch."""
    measures = []
    for name, value in record.items():
        if name in NOT_METRICS or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        key = EPOCH_METRICS.get(name, f"train/{key_of(name)}")
        measures.append(Measure(key, float(value), float(record["t"]), int(record.get("epoch", 0))))
    return measures
