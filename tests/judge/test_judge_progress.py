"""Progress comes from inside attacks, is true, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from judge_toys import EDGE, Case, judged

from robustdistill import attacks
from robustdistill.attacks.types import Access, Batch
from robustdistill.data.prepared import Prepared
from robustdistill.engine.devices import Compute
from robustdistill.engine.twin import Twin
from robustdistill.journal import Journal, fraction, read
from robustdistill.judge import autoattack, evaluate, progress
from robustdistill.judge.autoattack import AutoAttack, RandAutoAttack
from robustdistill.judge.progress import Heard, Piece, Progress, queries
from robustdistill.judge.sample import draw
from robustdistill.judge.subject import Subject
from robustdistill.rng import Draws
from robustdistill.threat import ThreatModel

Make = Callable[..., Case]


def told(path: Path, event: str = "attack") -> list[dict[str, Any]]:
    return [record for _, record in read(path) if record["event"] == event]


class Ears(Progress):
    """Takes down what is heard."""

    def __init__(self, path: Path) -> None:
        super().__init__(Journal(path, "test"))
        self.batches: list[int | None] = []

    def heard(self, standing: int | None = None) -> None:
        self.batches.append(standing)


@pytest.fixture
def talkative(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.0)


@pytest.mark.usefixtures("talkative")
def test_a_judgement_tells_from_inside_its_attacks_and_is_the_same(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    case = make(10, attacks=[{"name": "pgd", "steps": 12}, {"name": "own", "steps": 8, "queries": 50}], chunk=30)
    loud = judged(case, "loud", scratch="one")
    records = told(case.root / "journal.jsonl")
    for name in [attack["name"] for attack in loud["attacks"]]:
        own = [record for record in records if record["name"] == name]
        assert len([record for record in own if "query" in record]) > 12
        shares = [fraction(record) for record in own]
        assert shares == sorted(shares) and shares[-1] == 1.0, name  # the bar never goes back
        stands = [record["robust"] for record in own]
        assert all(after <= before for before, after in pairwise(stands)), name  # nobody rises again
        assert all(record["query"] <= record["queries"] for record in own if "query" in record)
    inside = [record for record in records if record["name"] == "autoattack" and "query" in record]
    assert {record["part"] for record in inside} == {"apgd-ce", "apgd-t", "fab-t", "square"}
    assert {record["message"].split(":")[0] for record in told(case.root / "journal.jsonl", "note")} == {
        "accuracy at other eps", "health checks", "corruptions and other threats",
    }  # fmt: skip
    monkeypatch.setattr(progress, "EVERY", 1e9)
    assert judged(case, "still", scratch="two") == loud
    files = sorted(path for path in (case.root / "loud").rglob("*") if path.is_file())
    still = case.root / "still"
    assert all((still / path.relative_to(case.root / "loud")).read_bytes() == path.read_bytes() for path in files)


@pytest.mark.usefixtures("talkative")
def test_what_square_breaks_is_told_before_it_is_done(make: Make) -> None:
    case = make(10, attacks=[{"name": "square", "queries": 200}], autoattack="none", chunk=1000)
    judged(case)
    records = told(case.root / "journal.jsonl")
    inside = [record["robust"] for record in records if "query" in record]
    begin, end = records[0]["robust"], records[-1]["robust"]
    assert begin == inside[0] and begin > inside[-1] >= end
    assert len(set(inside)) > 2


@pytest.mark.usefixtures("talkative")
@pytest.mark.parametrize("quick", [False, True])
def test_so_does_a_file_that_gives_scores_only(make: Make, monkeypatch: pytest.MonkeyPatch, quick: bool) -> None:
    """All its examples are one piece: nothing was said of it before the end."""
    monkeypatch.setattr(autoattack, "QUICK_QUERIES", 20)
    case = make(4)
    names = [f"class {number}" for number in range(4)]
    subject = Subject.of_file(case.export / "model.onnx", Compute("cpu", 1), shape=(1, EDGE, EDGE), names=names)
    protocol = case.params.judge.model_copy(update={"chunk": 1000, "autoattack": "none" if quick else "standard"})
    sample = draw(Prepared.open(case.prepared).split("test"), 100, case.params.seed)
    found = evaluate(subject, sample, case.params.threat.model(0.0, 1.0), protocol, case.tools())
    name, most = ("square-20", 20) if quick else ("square", autoattack.QUERIES)
    inside = [record for record in told(case.root / "journal.jsonl") if "query" in record]
    assert [attack["name"] for attack in found.card["attacks"]] == [name]
    assert {(record["name"], record["queries"], record["done"]) for record in inside} == {(name, most, 0)}
    assert [record["query"] for record in inside[:most]] == list(range(1, most + 1))
    assert inside[-1]["robust"] < inside[0]["robust"] and inside[-1]["robust"] >= found.trial.standing.sum()


def test_reports_from_inside_come_at_a_modest_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    journal = tmp_path / "journal.jsonl"
    made = Progress(Journal(journal, "judge"))
    made.begin(Piece("square", "", 0.2, 0.6, 50, standing=40, elsewhere=25, queries=1000))
    for step in range(500):
        now[0] += 0.01
        made.heard(15 - step // 100)
    records = told(journal)
    assert len(records) in (4, 5)  # in 5 s; floats add up to a little less
    last = records[-1]
    assert (last["done"], last["total"], last["queries"]) == (10, 50, 1000)
    assert last["share"] == pytest.approx(0.2 + 0.4 * last["query"] / 1000) and last["robust"] == 25 + 11
    made.attack("square", 0.6, 50, 30)
    count = len(told(journal))
    now[0] += 100
    made.heard(3)  # of no piece: nothing is said
    assert len(told(journal)) == count and told(journal, "note") == []


@pytest.mark.parametrize("name", ["fgsm", "pgd", "apgd", "fab", "square", "own"])
def test_an_attack_is_heard_about_as_often_as_it_says(make: Make, tmp_path: Path, name: str) -> None:
    """Nothing breaks at this eps, so the budget is used up; own sizes follow what still stands."""
    specs: dict[str, Any] = {
        "pgd": {"steps": 30, "restarts": 2},
        "apgd": {"steps": 30, "goal": "targeted-dlr", "targets": 3},
        "fab": {"steps": 30, "targets": 2},
        "square": {"queries": 60},
        "own": {"steps": 30, "queries": 60},
    }
    case = make(10)
    attack = attacks.build({"name": name, **specs.get(name, {})})
    x = torch.from_numpy(np.load(case.prepared / "test_x.npy")).float()[:20] / 255
    y, threat = case.model(x).argmax(1), ThreatModel("linf", 1e-6)
    ears = Ears(tmp_path / "journal.jsonl")
    batch = Batch(x, y, torch.arange(len(x)))
    attack(Heard(Twin(case.model), ears, attack.needs), batch, threat, Draws(0))
    budget = queries(attack, 10, tuple(x.shape[1:]))
    assert budget <= len(ears.batches) <= 1.2 * budget + 8
    assert {size for size in ears.batches if size is not None} == {20}


@pytest.mark.parametrize("part", ["apgd-ce", "apgd-dlr", "apgd-t", "fab-t", "square"])
@pytest.mark.parametrize("kind", [AutoAttack, RandAutoAttack])
def test_so_are_the_parts_of_the_package(make: Make, part: str, kind: type[AutoAttack]) -> None:
    case, sizes = make(10), list[int]()
    x = torch.from_numpy(np.load(case.prepared / "test_x.npy")).float()[:20] / 255
    y = case.model(x).argmax(1)
    attack = kind(Twin(case.model).model, ThreatModel("linf", 1e-6), 10, 0, heard=sizes.append)
    if kind is RandAutoAttack and not part.startswith("apgd"):
        return  # it has no such part
    attack.run(part, x, y, 0)
    slack = 2 * attack.passes * autoattack.TARGETS if part in ("apgd-t", "fab-t") else 2 * attack.passes + 3
    assert attack.cost(part) <= len(sizes) <= attack.cost(part) + 2 * slack
    assert set(sizes) == {20}


def test_another_model_that_breaks_tells_nothing_of_this_one(make: Make, tmp_path: Path) -> None:
    ears = Ears(tmp_path / "journal.jsonl")
    heard = Heard(Twin(make(10).model), ears)
    heard.logits(torch.zeros(3, 1, 6, 6))
    assert heard.access == Access.GRADIENT and ears.batches == [None]
