"""score@M: the exported model is judged; the student also by what is made for its teacher and its control."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from robustdistill.config import Params
from robustdistill.judge import judge
from robustdistill.stages.catalog import REPLAYED_ON_STUDENT

if TYPE_CHECKING:
    from robustdistill.stages.tools import Tools


def run(params: Params, reads: Mapping[str, Path], out: Path, tools: Tools) -> None:
    """Reads prepare, adversaries, export, and the exports of other models, if any; writes the scorecard and its
    evidence into `out`. Raises BadInput."""
    others = {role: reads[role] for role in REPLAYED_ON_STUDENT if role in reads}
    judge(reads["export"], reads["prepare"], reads["adversaries"], out, params, tools, others)
