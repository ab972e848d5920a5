"""Evidence: read back as written, and refused where files are missing, at odds or hostile."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evidences import evidence, write

from robustdistill.errors import BadInput
from robustdistill.gate.scorecard import Evidence, align

ROBUST = [True] * 7 + [False] * 5


def test_round_trip_and_worst_case(tmp_path: Path) -> None:
    made = evidence(ROBUST, [True] * 9 + [False] * 3)
    read = Evidence.load(write(made, tmp_path / "score"))
    assert np.array_equal(read.ids, made.ids)
    assert read.clean.sum() == 9
    assert read.robust.tolist() == ROBUST
    assert read.attacks == ("fgsm", "pgd")


def test_an_example_wrong_without_attack_is_never_robust() -> None:
    made = evidence([True] * 4)
    outcomes = {"pgd": np.array([True, True, False, True])}
    wrong = Evidence(made.card, made.ids, made.labels, (made.labels + np.array([1, 0, 0, 0])) % 3, outcomes)
    assert wrong.robust.tolist() == [False, True, False, True]


def _edit(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        path = folder / "scorecard.json"
        card = json.loads(path.read_text())
        change(card)
        path.write_text(json.dumps(card))

    return run


def _pickle(folder: Path) -> None:
    np.save(folder / "ids.npy", np.array([{}] * 12, dtype=object), allow_pickle=True)


DAMAGE: dict[str, Callable[[Path], None]] = {
    "no card": lambda f: (f / "scorecard.json").unlink(),
    "not json": lambda f: (f / "scorecard.json").write_text("{"),
    "not an object": lambda f: (f / "scorecard.json").write_text("[1]"),
    "binary card": lambda f: (f / "scorecard.json").write_bytes(b"\xff\xfe\x00"),
    "other schema": _edit(lambda c: c.update(schema=2)),
    "no threat": _edit(lambda c: c.pop("threat")),
    "bad norm": _edit(lambda c: c["threat"].update(norm="l7")),
    "no health": _edit(lambda c: c.pop("health")),
    "health is text": _edit(lambda c: c.update(health="fine")),
    "no digest": _edit(lambda c: c["sample"].pop("digest")),
    "no access": _edit(lambda c: c["subject"].pop("access")),
    "n is text": _edit(lambda c: c["sample"].update(n="many")),
    "n is 0": _edit(lambda c: c["sample"].update(n=0)),
    "no attack": _edit(lambda c: c.update(attacks=[])),
    "attack twice": _edit(lambda c: c["attacks"].append({"name": "pgd"})),
    "attack without outcomes": _edit(lambda c: c["attacks"].append({"name": "autoattack"})),
    "attack is a path": _edit(lambda c: c["attacks"].append({"name": "../ids"})),
    "robust overstated": _edit(lambda c: c["robust"].update(accuracy=0.9)),
    "robust is nan": _edit(lambda c: c["robust"].update(accuracy=float("nan"))),
    "clean at odds": _edit(lambda c: c["clean"].update(accuracy=0.5)),
    "no classes": _edit(lambda c: c.update(per_class=[])),
    "a class overstated": _edit(lambda c: c["per_class"][0].update(robust=1.0)),
    "a class above 1": _edit(lambda c: c["per_class"][0].update(robust=1.5)),
    "a class left out": _edit(lambda c: c["per_class"].pop()),
    "ids missing": lambda f: (f / "ids.npy").unlink(),
    "ids truncated": lambda f: (f / "ids.npy").write_bytes((f / "ids.npy").read_bytes()[:140]),
    "ids not an array": lambda f: (f / "ids.npy").write_bytes(b"hello"),
    "ids empty": lambda f: (f / "ids.npy").write_bytes(b""),
    "ids repeated": lambda f: np.save(f / "ids.npy", np.zeros(12, dtype=np.int64)),
    "ids are floats": lambda f: np.save(f / "ids.npy", np.arange(12.0)),
    "ids pickled": _pickle,
    "labels too few": lambda f: np.save(f / "labels.npy", np.zeros(3, dtype=np.int64)),
    "outcomes not flags": lambda f: np.save(f / "outcomes" / "pgd.npy", np.ones(12)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_bad_input(damage: str, tmp_path: Path) -> None:
    folder = write(evidence(ROBUST), tmp_path / "score")
    DAMAGE[damage](folder)
    with pytest.raises(BadInput) as caught:
        Evidence.load(folder)
    assert str(folder) in str(caught.value)


def test_an_unsound_evaluation_loads_so_that_it_can_be_called_unhealthy(tmp_path: Path) -> None:
    """Logits that are not numbers are wrong on the card even where their argmax is the label."""
    folder = write(evidence(ROBUST), tmp_path / "score")
    _edit(lambda c: c["clean"].update(accuracy=0.5))(folder)
    _edit(lambda c: c.update(health=[{"name": "a", "ok": False, "level": "error", "sentence": "not finite"}]))(folder)
    assert Evidence.load(folder).health[0].failed


def test_align_takes_common_examples() -> None:
    ours, theirs = evidence([True] * 6), evidence([False] * 6, start=3)
    pair = align(ours, theirs, what="both")
    assert pair.ours.ids.tolist() == pair.theirs.ids.tolist() == [3, 4, 5]
    assert pair.discordant("robust") == (3, 0)


def test_what_was_made_for_others_counts_for_a_floor_and_in_no_comparison() -> None:
    theirs = evidence(ROBUST)
    replayed = {"transfer-teacher": np.arange(12) >= 3}
    ours = dataclasses.replace(theirs, outcomes={**theirs.outcomes, **replayed})
    assert ours.robust.sum() == 4
    for pair in (align(ours, theirs, what="both"), align(theirs, ours, what="both")):
        assert pair.discordant("robust") == (0, 0) and pair.ours.robust.sum() == pair.theirs.robust.sum() == 7


def test_nothing_but_what_was_made_for_others_compares_nothing() -> None:
    ours, theirs = (
        dataclasses.replace(evidence(ROBUST), outcomes={f"transfer-{name}": np.ones(12, dtype=bool)}) for name in "ab"
    )
    with pytest.raises(BadInput, match="different attacks"):
        align(ours, theirs, what="both")


def test_align_needs_no_order() -> None:
    ours, theirs = evidence(ROBUST), evidence(ROBUST)
    assert align(ours, theirs.at(np.arange(12)[::-1]), what="both").discordant("robust") == (0, 0)


def _card(found: Evidence, part: str, **changes: Any) -> Evidence:
    card = {**found.card, part: {**found.card[part], **changes}}
    return Evidence(card, found.ids, found.labels, found.predictions, found.outcomes)


MISMATCHES: dict[str, Callable[[Evidence], Evidence]] = {
    "threat": lambda e: _card(e, "threat", eps=0.2),
    "norm": lambda e: _card(e, "threat", norm="l2"),
    "chunk": lambda e: _card(e, "sample", chunk=10),
    "split": lambda e: _card(e, "sample", split="val"),
    "attacks": lambda e: Evidence(e.card, e.ids, e.labels, e.predictions, {"fgsm": e.outcomes["fgsm"]}),
    "labels": lambda e: Evidence(e.card, e.ids, (e.labels + 1) % 3, e.predictions, e.outcomes),
    "nothing in common": lambda e: Evidence(e.card, e.ids + 100, e.labels, e.predictions, e.outcomes),
}


@pytest.mark.parametrize("mismatch", MISMATCHES)
def test_what_cannot_be_compared_is_refused(mismatch: str) -> None:
    with pytest.raises(BadInput, match="the pair"):
        align(evidence(ROBUST), MISMATCHES[mismatch](evidence(ROBUST)), what="the pair")
