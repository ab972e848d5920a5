"""What a report is made of: the artifacts of one run, read tolerantly. A missing file is said, a damaged one is named;
neither stops a report, since it is most wanted when something went wrong."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MODELS = ("initial", "teacher", "control", "student")
ROLES = {
    "initial": "undefended",
    "teacher": "adversarially trained",
    "control": "the student without a teacher",
    "student": "distilled from the teacher",
    "model": "",
}
MARKERS = {"initial": "triangle", "teacher": "square", "control": "diamond", "student": "circle", "model": "circle"}


@dataclass(frozen=True)
class Model:
    """One model of the chain (or any one: "model"), as far as it exists.

    history, curve: rows of numbers (NaN where a cell is empty)."""

    name: str
    card: Mapping[str, Any] | None
    export: Mapping[str, Any] | None
    summary: Mapping[str, Any] | None
    history: list[dict[str, float]]
    curve: list[dict[str, float]]

    @property
    def role(self) -> str:
        return ROLES[self.name]

    @property
    def marker(self) -> str:
        return MARKERS[self.name]

    @property
    def parameters(self) -> int | None:
        for source in (self.export, self.summary, self.card and self.card.get("subject")):
            if source and isinstance(source.get("parameters"), int):
                return int(source["parameters"])
        return None


@dataclass(frozen=True)
class Material:
    artifacts: Path
    models: Mapping[str, Model]
    manifest: Mapping[str, Any] | None
    problems: list[str] = field(default_factory=list)

    @property
    def judged(self) -> list[Model]:
        return [model for model in self.models.values() if model.card]

    @property
    def missing(self) -> list[str]:
        """The models that have no scorecard."""
        return [name for name, model in self.models.items() if not model.card]


def gather(artifacts: Path) -> Material:
    """Reads what is there under artifacts/."""
    problems: list[str] = []
    models = {name: _model(artifacts, name, problems) for name in MODELS}
    return Material(artifacts, models, _json(artifacts, "prepare/manifest.json", problems), problems)


def _model(artifacts: Path, name: str, problems: list[str]) -> Model:
    card = _json(artifacts, f"score/{name}/scorecard.json", problems)
    if card is not None and not _complete(card):
        problems.append(f"score/{name}/scorecard.json is not a scorecard")
        card = None
    return Model(
        name,
        card,
        _json(artifacts, f"export/{name}/export.json", problems),
        _json(artifacts, f"{name}/summary.json", problems),
        _rows(artifacts, f"{name}/history.csv", problems),
        _rows(artifacts, f"score/{name}/curve.csv", problems),
    )


def _complete(card: Mapping[str, Any]) -> bool:
    """Whether a scorecard has the parts that are shown."""
    try:
        figures = [card["clean"], card["robust"], *card["attacks"]]
        shares = [float(figure["accuracy"]) for figure in figures]
        _ = [(str(row["class"]), int(row["n"])) for row in card["per_class"]]
        _ = [attack["name"] for attack in card["attacks"]], int(card["sample"]["n"]), card["threat"]["norm"]
        _ = [(item["ok"], item["sentence"]) for item in card["health"]], card["subject"]["sha256"]
    except (KeyError, TypeError, ValueError, AttributeError):
        return False
    return all(math.isfinite(share) for share in shares)


def _json(artifacts: Path, name: str, problems: list[str]) -> dict[str, Any] | None:
    try:
        content = json.loads((artifacts / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict):
        problems.append(f"{name} cannot be read")
        return None
    return content


def _rows(artifacts: Path, name: str, problems: list[str]) -> list[dict[str, float]]:
    try:
        with (artifacts / name).open(encoding="utf-8", newline="") as stream:
            return [_numbers(row) for row in csv.DictReader(stream)]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, csv.Error):
        problems.append(f"{name} cannot be read")
        return []


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    return {key: float(value) if value else math.nan for key, value in row.items() if isinstance(key, str)}
