"""What one answer costs on this machine. Seconds differ from run to run, so they stand in no tracked file."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from torch import Tensor

from robustdistill.data.files import write_json
from robustdistill.judge.subject import Subject

WARM, CALLS, BUDGET = 20, 200, 2.0  # calls before, calls timed at most, seconds at most


def write(path: Path, subject: Subject, x: Tensor, export: Path) -> None:
    """Median and 95th percentile of ONNX Runtime's answer to one example, in ms, and the sizes of the files."""
    one = {"x": x.cpu().numpy()}
    for _ in range(WARM):
        subject.session.run(None, one)
    taken: list[float] = []
    ends = time.perf_counter() + BUDGET
    while len(taken) < CALLS and (not taken or time.perf_counter() < ends):
        began = time.perf_counter()
        subject.session.run(None, one)
        taken.append(1e3 * (time.perf_counter() - began))
    p50, p95 = (round(float(np.percentile(taken, q)), 4) for q in (50, 95))
    sizes = {name: (export / f"model.{name}").stat().st_size for name in ("onnx", "safetensors")}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"latency_ms": {"p50": p50, "p95": p95}, "bytes": sizes, "calls": len(taken)})
