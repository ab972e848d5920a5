"""export@M: the selected weights as the file that is judged and served. See release/onnx.py."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from robustdistill.config import Params
from robustdistill.data.prepared import Prepared
from robustdistill.data.seen import Seen
from robustdistill.release import onnx

if TYPE_CHECKING:
    from robustdistill.stages.tools import Tools

EXAMPLES = 32  # validation examples on which the file and the model are compared


def run(params: Params, reads: Mapping[str, Path], out: Path, tools: Tools) -> None:
    """Reads prepare and model; writes what release/onnx.py says into `out`. Raises BadInput."""
    data = Prepared.open(reads["prepare"])
    split = data.split("val")
    examples, _, _ = split.take(np.arange(min(EXAMPLES, len(split))))
    seen = Seen(np.union1d(data.split("train").id, split.id)) | Seen.read(reads["model"])
    record = onnx.export(
        reads["model"], out, data.manifest.classes, examples, seen.ids, seen.unknown, resize=data.manifest.resize
    )
    tools.journal.write("note", message=f"exported {record['bytes']['onnx'] / 1e6:.2f} MB of ONNX")
