"""initial: the undefended model, whose adversarial examples become the stored set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from robustdistill.config import Params
from robustdistill.stages.learner import learn
from robustdistill.stages.tools import Tools


def run(params: Params, reads: Mapping[str, Path], out: Path, tools: Tools) -> None:
    """Reads prepare, writes the model into `out`. Raises BadInput."""
    learn("initial", params, params.initial, reads["prepare"], out, tools)
