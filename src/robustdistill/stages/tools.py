"""What a stage is handed besides its inputs: how to compute, where to report, where to keep checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from robustdistill.engine.devices import Compute
from robustdistill.journal import Journal


@dataclass(frozen=True)
class Tools:
    """scratch: of this stage and exactly these inputs; survives a crash.

    debug: slow checks on, such as where a number first stopped being finite.
    """

    compute: Compute
    journal: Journal
    scratch: Path
    debug: bool = False
