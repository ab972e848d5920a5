"""What a student is compared with after a change of the data: who decides, and who is left out by name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robustdistill.actions import references
from robustdistill.actions.promote import promote
from robustdistill.actions.references import RIVALS, gather
from robustdistill.actions.register import THREAT
from robustdistill.errors import ServiceFailed
from robustdistill.gate.verdict import Verdict

TODAY = {"shape": [1, 2, 3], "classes": ["cat", "dog", "eel"], "low": 0.0, "high": 1.0}
FORMER = ["ape", "bee", "cow"]


@dataclass
class Workspace:
    root: Path
    name: str = "toy"

    @property
    def work(self) -> Path:
        return self.root / ".work"

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    def data(self, **changes: Any) -> None:
        """What today's data are like."""
        (self.artifacts / "prepare").mkdir(parents=True, exist_ok=True)
        (self.artifacts / "prepare" / "manifest.json").write_text(json.dumps(TODAY | changes))


@dataclass
class Session:
    """As much of a session as `gather` uses."""

    workspace: Workspace
    store: Any
    run: str = "run"
    up_to_date: bool = False
    incomparable: str = ""


@dataclass
class Judged:
    """Evidence on the version in this folder."""

    export: Path

    @property
    def robust(self) -> Any:
        card = json.loads((self.export / "scorecard.json").read_text())
        return np.array([card["robust"]["accuracy"]])


@pytest.fixture
def current(store: Any, work: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    monkeypatch.setattr(references, "rescored", lambda workspace, export, run, *, up_to_date: Judged(export))
    made = Session(Workspace(work.parent), store)
    made.workspace.data()
    return made


@pytest.fixture
def promoted(current: Session, registered: Any) -> Any:
    """promoted(scale, robust=..., classes=...): a new champion."""

    def make(scale: float, **what: Any) -> Path:
        number, work = registered(scale, **what), current.workspace.work
        made = promote(current.store, "toy", number, verdict={"verdict": "pass"}, record={}, by="me", work=work)
        sha = current.store.registry.version("toy", made.version).tags["robustdistill.sha256"]
        return current.workspace.work / "models" / sha

    return make


def test_before_the_first_promotion_there_is_nothing_to_compare_with(current: Session) -> None:
    assert gather(current) == references.References({}, [])
    assert current.incomparable == ""


def test_a_champion_of_other_data_leaves_the_decision_to_a_person(current: Session, promoted: Any) -> None:
    promoted(1.0)
    current.workspace.data(shape=[3, 2, 3])
    assert gather(current) == references.References({}, [])
    told = "the champion cannot be judged on today's data: it takes inputs of shape [1, 2, 3], the data have [3, 2, 3]"
    assert current.incomparable == told
    current.workspace.data()
    assert set(gather(current).judged) == {"champion", "best"} and current.incomparable == ""


def test_a_changed_threat_model_is_for_a_person_and_all_are_compared_under_todays(
    current: Session, promoted: Any
) -> None:
    """Else a weak threat for one run would make the bar forget all that was promoted before."""
    first, second = promoted(1.0, robust=0.9), promoted(2.0, robust=0.3)
    card = current.workspace.artifacts / "score" / "student" / "scorecard.json"
    card.parent.mkdir(parents=True)
    today = {"norm": "linf", "eps": 0.2, "low": 0.0, "high": 1.0}
    card.write_text(json.dumps({"threat": today}))
    for number in (1, 2):
        current.store.registry.tag("toy", number, {THREAT: json.dumps(today, sort_keys=True)})
    assert gather(current).judged["best"].export == first and current.incomparable == ""  # type: ignore[attr-defined]
    current.store.registry.tag("toy", 2, {THREAT: json.dumps(today | {"eps": 0.01}, sort_keys=True)})
    found = gather(current).judged
    assert (found["champion"].export, found["best"].export) == (second, first)  # type: ignore[attr-defined]
    assert "0.01" in current.incomparable and "today's threat model is" in current.incomparable


def test_rivals_of_other_data_are_left_out_by_name_and_take_nobodys_place(current: Session, promoted: Any) -> None:
    """However much more robust they were: else no student would ever be champion again."""
    for scale in range(1, RIVALS + 2):
        promoted(float(scale), robust=0.9, classes=FORMER)
    best, champion = promoted(8.0, robust=0.5), promoted(9.0, robust=0.4)
    found = gather(current)
    assert current.incomparable == ""
    assert found.judged["champion"].export == champion and found.judged["best"].export == best  # type: ignore[attr-defined]
    [sentence] = found.left_out
    assert sentence.startswith(
        "versions 1, 2, 3 and 4: each was made for the classes ape, bee, cow, the data have cat,"
    )
    assert sentence.endswith("and was not compared")
    result = found.named(Verdict("pass", "0" * 64, [], None, {}))
    assert result.verdict == "pass"
    assert [(rule.rule, rule.status, rule.sentence) for rule in result.rules] == [
        ("left_out", "not_applicable", sentence)
    ]


def test_no_more_rivals_are_judged_than_agreed(current: Session, promoted: Any, monkeypatch: Any) -> None:
    for scale in range(1, RIVALS + 3):
        promoted(float(scale), robust=0.5 + 0.01 * scale)
    seen: list[Path] = []
    monkeypatch.setattr(
        references, "rescored", lambda workspace, export, run, *, up_to_date: seen.append(export) or Judged(export)
    )
    gather(current)
    assert len(set(seen)) == RIVALS


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("export.json", {"shape": [1, 3, 2]}),
        ("export.json", {"classes": ["cat", "dog", "fox"]}),
        ("export.json", {"classes": ["cat", "dog"]}),
        ("export.json", {"high": 255.0}),
        ("model.json", {"sha256": "0" * 64}),
    ],
)
def test_an_altered_description_is_no_way_out_of_a_comparison(
    current: Session, promoted: Any, monkeypatch: pytest.MonkeyPatch, file: str, change: dict[str, Any]
) -> None:
    rival = promoted(1.0, robust=0.9, classes=FORMER if file == "model.json" else TODAY["classes"])
    promoted(2.0, robust=0.5)
    gather(current)  # fetched
    path = rival / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    # An example of another shape or range answers otherwise than the smoke test says, so the copy would be fetched
    # again; here the registry's own copy is the altered one.
    monkeypatch.setattr(references.champion.package, "smoke_test", lambda *_: None)
    with pytest.raises(ServiceFailed, match="not that of its model"):
        gather(current)


def test_an_emptied_registry_is_no_first_run(current: Session, promoted: Any, tmp_path: Path) -> None:
    promoted(1.0)
    current.store = type(current.store).open(None, tmp_path / "new")
    assert gather(current) == references.References({}, [])
    assert "the registry holds no version of toy" in current.incomparable
