"""control: the student's twin without a teacher. Same architecture, first weights, order, budget; other objective.

What the student has beyond it is what distillation gave.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from robustdistill.config import Params
from robustdistill.stages.learner import learn
from robustdistill.stages.tools import Tools


def run(params: Params, reads: Mapping[str, Path], out: Path, tools: Tools) -> None:
    """Reads prepare, writes the model into `out`. Raises BadInput."""
    objective, where = params.control.objective, "control.objective"
    learn("student", params, params.student, reads["prepare"], out, tools, objective=objective, where=where)
