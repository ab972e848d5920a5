"""A process of its own answers for the judged model, and is asked about attacked images first."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from robustdistill.actions import judge_anew, judge_target
from robustdistill.judge.anew import Anew, NotAsked

Judge = Callable[..., tuple[int, str, str]]
REMEMBERS = """
from own import Blocks

FIRST = []  # of the process, not of the module: a copy of the module shares it


class Remembers(Blocks):
    def forward(self, x):
        logits = super().forward(x)
        if not FIRST:
            FIRST.append(float(x.mean()) * 100 % 1)
        logits[:, 0] += FIRST[0]
        return logits
"""


def history(said: dict[str, Any]) -> dict[str, Any]:
    (found,) = (item for item in said["checks"] if item["name"] == "history")
    return dict(found)


@pytest.fixture
def asked(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As `here`, with the fresh process that other tests do without."""
    monkeypatch.setattr(judge_target, "command", judge_anew.command)
    return here


def test_what_a_process_remembers_is_found_by_a_fresh_one(
    judge: Judge, asked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (asked / "remembers.py").write_text(REMEMBERS)
    found = history(json.loads(judge("remembers:Remembers", "--quick", "--json")[1]))
    assert not found["ok"] and found["value"] > 10 * found["threshold"] and "a fresh one" in found["sentence"], found
    monkeypatch.setattr(judge_target, "command", lambda *_: None)
    alone = history(json.loads(judge("remembers:Remembers", "--quick", "--json", "--again")[1]))
    assert alone["ok"] and "where alone it was asked" in alone["sentence"]


def test_an_honest_model_answers_the_same_in_a_fresh_process(judge: Judge, asked: Path) -> None:
    code, out, _ = judge("own:load", "--quick", "--json")
    found = history(json.loads(out))
    assert code == 0 and found["ok"] and "in this process or in a fresh one" in found["sentence"]


def test_a_process_that_fails_is_no_answer(tmp_path: Path) -> None:
    x = torch.zeros(2, 1, 4, 4)
    with pytest.raises(NotAsked, match="exit code 3"):
        Anew((sys.executable, "-c", "raise SystemExit(3)")).answers(x, x)
    with pytest.raises(NotAsked, match="FileNotFoundError"):
        Anew((str(tmp_path / "nothing"),)).answers(x, x)
