"""The numeric plan: device, threads, precision. Chosen per machine, recorded with each checkpoint.

Equal plans on equal machines and versions give bit-equal results; another number of threads sums in another order.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass
from typing import Any

import torch

from robustdistill.errors import BadInput
from robustdistill.machine import cores

DEVICE_VARIABLE = "ROBUSTDISTILL_DEVICE"
THREADS_VARIABLE = "ROBUSTDISTILL_THREADS"
PRECISION_VARIABLE = "ROBUSTDISTILL_PRECISION"
AUTO = "auto"
PRECISIONS = ("float32", "bfloat16", AUTO)
MOST_THREADS = 1024


@dataclass(frozen=True)
class Compute:
    """device: as torch names it. threads: of one process. precision: of convolutions and matrix products in training;
    auto: what is faster for the model (engine.tuner), and float32 where nothing is trained."""

    device: str
    threads: int
    precision: str = "float32"

    def __post_init__(self) -> None:
        if not 1 <= self.threads <= MOST_THREADS:
            raise BadInput(f"{self.threads} threads", where=THREADS_VARIABLE, fix="give a number from 1 on")
        if self.precision not in PRECISIONS:
            fix = f"choices: {', '.join(PRECISIONS)}"
            raise BadInput(f"unknown precision {self.precision!r}", where=PRECISION_VARIABLE, fix=fix)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def autocast(self) -> AbstractContextManager[Any]:
        """Around the passes of one step. float32 changes nothing."""
        if self.precision != "bfloat16":
            return nullcontext()
        return torch.autocast(torch.device(self.device).type, dtype=torch.bfloat16)


def choose() -> Compute:
    """This machine's plan, from ROBUSTDISTILL_DEVICE, _THREADS and _PRECISION where set. Raises BadInput."""
    device = os.environ.get(DEVICE_VARIABLE) or ("cuda" if torch.cuda.is_available() else "cpu")
    given = os.environ.get(THREADS_VARIABLE)
    if given and not given.isdecimal():
        raise BadInput(f"{given!r} is not a number of threads", where=THREADS_VARIABLE, fix="give a number from 1 on")
    # Half of the cores: two stages may run at once, and hardware threads of one core share its arithmetic.
    threads = int(given) if given else max(1, cores() // 2)
    return Compute(require_device(device), threads, os.environ.get(PRECISION_VARIABLE) or AUTO)


def require_device(device: str, where: str = DEVICE_VARIABLE) -> str:
    """The device, if this machine has it and torch can use it. Raises BadInput."""
    try:
        kind = torch.device(device).type
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(
            f"device {device!r} cannot be used here: {reason}", where=where, fix="leave it out, or say cpu"
        ) from error
    if kind == "meta":
        raise BadInput("device 'meta' computes nothing", where=where, fix="leave it out, or say cpu")
    return device


def apply(compute: Compute) -> None:
    """Makes the plan that of this process; call it before the first large allocation."""
    require_device(compute.device)
    _keep_memory()
    torch.set_num_threads(compute.threads)
    torch.backends.cudnn.benchmark = False  # it picks kernels by time, so differently from run to run
    torch.backends.cudnn.deterministic = True
    if torch.device(compute.device).type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)


def _keep_memory() -> None:
    """glibc: no mmap for large blocks, never give memory back, one arena. Saves the page faults of each step."""
    trim_threshold, mmap_max, arena_max = -1, -4, -8  # malloc.h
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in ((mmap_max, 0), (trim_threshold, 2**31 - 1), (arena_max, 1)):
            mallopt(option, value)
