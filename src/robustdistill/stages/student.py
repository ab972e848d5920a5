"""student: the small model, distilled from the teacher."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from robustdistill.config import Params
from robustdistill.models import weights
from robustdistill.stages.learner import learn
from robustdistill.stages.tools import Tools


def run(params: Params, reads: Mapping[str, Path], out: Path, tools: Tools) -> None:
    """Reads prepare and teacher, writes the model into `out`. Raises BadInput."""
    learn("student", params, params.student, reads["prepare"], out, tools, teacher=weights.load(reads["teacher"]))
