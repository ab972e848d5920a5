"""student: the small model, distilled from the teacher; methods with two teachers see the undefended model as well."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from robustdistill.config import Params
from robustdistill.data.seen import Seen
from robustdistill.models import weights
from robustdistill.stages.learner import learn
from robustdistill.stages.tools import Tools


def run(params: Params, reads: Mapping[str, Path], out: Path, tools: Tools) -> None:
    """Reads prepare, teacher and, where the objective needs two, initial; writes the model. Raises BadInput."""
    teacher, clean = weights.load(reads["teacher"]), reads["initial"]
    learn("student", params, params.student, reads["prepare"], out, tools, teacher=teacher, clean_teacher=clean)
    Seen.read(reads["teacher"]).write(out)
