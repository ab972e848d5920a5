"""Fixtures of the training tests; the toys themselves are in training_bench.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from training_bench import Bench, make_bench, make_job

from robustdistill.training import Job


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return make_bench(tmp_path)


@pytest.fixture
def job() -> Callable[..., Job]:
    return make_job
