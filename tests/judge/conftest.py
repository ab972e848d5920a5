"""A judge that is quick, and toy models for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from judge_toys import Case, Toy, make_case

from robustdistill.judge import autoattack
from robustdistill.models import MODELS


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A linear model is broken in few steps, if at all."""
    monkeypatch.setitem(MODELS, "toy", Toy)
    monkeypatch.setattr(autoattack, "ITERATIONS", 15)
    monkeypatch.setattr(autoattack, "QUERIES", 60)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Case]:
    """Cases, each in a folder of its own."""
    made: list[Case] = []

    def case(*args: Any, **kwargs: Any) -> Case:
        made.append(make_case(tmp_path / str(len(made)), *args, **kwargs))
        return made[-1]

    return case
