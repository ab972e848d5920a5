"""How often a test set was looked at: one line for each finished judgement that a decision may rest on.

Whoever chooses among models by the same examples fits them a little with each choice. The ledger lies beside the
workspace's records, in `.work`: it is no result, and a clone begins its own. The yardsticks of a run (initial model,
control) are not counted, since nobody chooses among them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from robustdistill.gate.verdict import Rule, Verdict
from robustdistill.journal import Journal, read
from robustdistill.workspace import Workspace

FILE = "looks.jsonl"
CHOSEN = ("score@teacher", "score@student")  # stages whose figures a gate reads to choose
# The largest of k standard normal draws is 1.96 on average at k = 25: the best of so many equally good models seems
# better than it is by the half-width of a 95 % interval (independent errors assumed; on shared examples it is less).
MANY = 25


@dataclass(frozen=True)
class Looks:
    """times: judgements of these n examples. models: of how many different models."""

    times: int
    models: int
    n: int

    @property
    def many(self) -> bool:
        return self.models >= MANY

    @property
    def sentence(self) -> str:
        """For people, with the reason where there were many."""
        times = "once" if self.times == 1 else f"{self.times} times"
        models = "one model" if self.models == 1 else f"{self.models} models"
        said = f"this test set ({self.n:,} examples) has been looked at {times}, for {models}"
        if not self.many:
            return said
        return (
            f"{said}: the best of {MANY} equally good models seems up to 1.96 standard errors better than it is, as "
            "much as a 95 % interval allows for; confirm on examples that nobody has looked at"
        )

    def to_json(self) -> dict[str, Any]:
        return {"times": self.times, "models": self.models, "sentence": self.sentence}


def note(workspace: Workspace, card: Mapping[str, Any], by: str) -> None:
    """Appends a look in one write. by: the stage, or "judge". Disk errors raise OSError."""
    sample, subject = card["sample"], card["subject"]
    Journal(workspace.work / FILE, by).write("look", digest=sample["digest"], n=sample["n"], sha256=subject["sha256"])


def note_stage(workspace: Workspace, stage: str) -> None:
    """The look that a finished stage was, if its figures are there to choose by."""
    if stage in CHOSEN:
        path = workspace.out(stage) / "scorecard.json"
        note(workspace, json.loads(path.read_text(encoding="utf-8")), stage)


def at(workspace: Workspace, digest: str) -> Looks:
    """The looks at the sample of this digest so far."""
    found = [record for _, record in read(workspace.work / FILE) if record.get("digest") == digest]
    return Looks(len(found), len({record.get("sha256") for record in found}), found[-1]["n"] if found else 0)


def named(workspace: Workspace, result: Verdict) -> Verdict:
    """The verdict with a line on the looks at its sample, where there were many. It decides nothing."""
    found = at(workspace, str(result.candidate["sample_digest"]))
    if not found.many:
        return result
    return replace(result, rules=[*result.rules, Rule("looks", "informs", found.sentence, found.models, MANY)])
