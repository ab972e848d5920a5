"""prepare: raw data → validated, de-duplicated, split, memory-mapped. See data/preparation.py."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from robustdistill.config import Params
from robustdistill.data import prepare
from robustdistill.data.sources import SOURCES
from robustdistill.errors import unknown

if TYPE_CHECKING:
    from robustdistill.stages.tools import Tools


def run(params: Params, reads: Mapping[str, Path], out: Path, tools: Tools) -> None:
    """Reads reads["data"], writes the arrays and manifest.json into `out`. Raises BadInput."""

    def progress(done: int, total: int) -> None:
        tools.journal.progress(done, total, "images")

    if params.data.source not in SOURCES:
        raise unknown("data source", params.data.source, SOURCES, where="params.yaml: data.source")
    prepare(reads["data"], out, params.data, progress=progress)
