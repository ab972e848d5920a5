"""What a flow run came to, as plain data: printed by the console, emitted by --json, shown in Prefect."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from robustdistill.errors import OutOfTime, Superseded
from robustdistill.release.around import line

MODELS = ("initial", "teacher", "control", "student")

Outcome = Literal[
    "promoted", "unchanged", "challenger", "refused", "unhealthy", "plan", "dry run", "superseded", "out of time",
    "nothing new", "ingested", "too few", "waiting", "busy",
]  # fmt: skip
EXIT_CODES: dict[Outcome, int] = {
    "promoted": 0, "unchanged": 0, "challenger": 0, "plan": 0, "dry run": 0, "refused": 1, "unhealthy": 3,
    "superseded": Superseded.exit_code, "out of time": OutOfTime.exit_code,
    "nothing new": 0, "ingested": 0, "too few": 0, "waiting": 0, "busy": 0,
}  # fmt: skip
VERDICT_CODES = {"fail": EXIT_CODES["refused"], "unhealthy": EXIT_CODES["unhealthy"]}  # of what a dry run foresees


@dataclass(frozen=True)
class StageRow:
    name: str
    ran: bool
    seconds: float = 0.0
    withheld: str = ""  # why it did not run although it had to


@dataclass(frozen=True)
class ModelRow:
    """One model's figures; each figure is {"accuracy", "lower", "upper"} as fractions."""

    name: str
    parameters: int
    clean: Mapping[str, Any]
    robust: Mapping[str, Any]
    attacks: Mapping[str, Mapping[str, Any]]
    worst_class: Mapping[str, Any] | None = None  # {"class", "n", "accuracy"}: the lowest robust accuracy
    around: str = ""


@dataclass(frozen=True)
class Summary:
    workspace: str
    outcome: Outcome
    sentence: str
    stages: list[StageRow] = field(default_factory=list)
    models: list[ModelRow] = field(default_factory=list)
    verdict: Mapping[str, Any] | None = None
    registry: list[str] = field(default_factory=list)
    pointers: list[tuple[str, str]] = field(default_factory=list)
    looks: str = ""

    @property
    def exit_code(self) -> int:
        if self.outcome == "dry run" and self.verdict:
            return VERDICT_CODES.get(self.verdict["verdict"], 0)
        return EXIT_CODES[self.outcome]

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"exit_code": self.exit_code}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Summary:
        kept = {key: value for key, value in record.items() if key != "exit_code"}
        stages = [StageRow(**row) for row in record["stages"]]
        models = [ModelRow(**row) for row in record["models"]]
        pointers = [(label, text) for label, text in record["pointers"]]
        return cls(**{**kept, "stages": stages, "models": models, "pointers": pointers})


def model_rows(scores: Path) -> list[ModelRow]:
    """The models that have a scorecard under artifacts/score, in the order of the chain."""
    rows = []
    for name in MODELS:
        path = scores / name / "scorecard.json"
        if not path.exists():
            continue
        card = json.loads(path.read_text(encoding="utf-8"))
        attacks = {attack["name"]: attack for attack in card["attacks"]}
        weakest = card.get("worst_class", {}).get("robust")
        figures = card["subject"]["parameters"], card["clean"], card["robust"], attacks
        rows.append(ModelRow(name, *figures, weakest, line(card)))
    return rows
