"""score@M: the exported model is judged. See judge/."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from robustdistill.config import Params
from robustdistill.judge import judge

if TYPE_CHECKING:
    from robustdistill.stages.tools import Tools


def run(params: Params, reads: Mapping[str, Path], out: Path, tools: Tools) -> None:
    """Reads prepare, adversaries and export; writes the scorecard and its evidence into `out`. Raises BadInput."""
    judge(reads["export"], reads["prepare"], reads["adversaries"], out, params, tools)
