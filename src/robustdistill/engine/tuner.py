"""Which number format is faster here, by measurement: what gains in bfloat16 on a processor that has instructions for
it loses on one that has not, and both depend on the model.

Timed is what a training does most, the gradient of an input; the format in which it is clearly faster is remembered by
machine and model, so that the same training is done in the same arithmetic next time, too.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robustdistill.attacks.types import Batch
from robustdistill.data.files import write_json
from robustdistill.engine.devices import AUTO, Compute
from robustdistill.engine.twin import Twin
from robustdistill.models.classifier import Classifier

CLEARLY = 1.15  # times as fast: what is less may be chance, and float32 is the safer one
LEAST_ROUNDS, MOST_ROUNDS, SECONDS = 2, 7, 2.0
MOST_EXAMPLES = 128


@dataclass(frozen=True)
class Choice:
    """gain: how many times as fast as float32 bfloat16 is, 0 where there is none."""

    precision: str
    gain: float

    @property
    def sentence(self) -> str:
        if not self.gain:
            return f"trains in {self.precision}: this device has no bfloat16"
        slower = f"{self.gain:.2f} times as fast as" if self.gain >= 1 else f"{1 / self.gain:.2f} times as slow as"
        return (
            f"trains in {self.precision}: bfloat16 is {slower} float32 here (ROBUSTDISTILL_PRECISION decides otherwise)"
        )


def tuned(compute: Compute, model: Classifier, batch: int, tell: Callable[[str], None]) -> Compute:
    """The plan with the precision chosen, if it leaves that open. model: on the plan's device."""
    if compute.precision != AUTO:
        return compute
    key = _key(compute, model, batch)
    with _alone():  # student and control begin together, and are compared: they get one answer
        choice = _remembered(key)
        if choice is None:
            choice = measured(compute, model, batch)
            _remember(key, choice)
    tell(choice.sentence)
    return replace(compute, precision=choice.precision)


def measured(compute: Compute, model: Classifier, batch: int) -> Choice:
    """Times both in turn; the fastest round of each counts, since what disturbs only ever makes slower."""
    if not _served(compute.device):
        return Choice("float32", 0.0)
    spec, count = model.spec, min(batch, MOST_EXAMPLES)
    index = torch.arange(count, device=compute.device)
    x = torch.full((count, *spec.shape), (spec.low + spec.high) / 2, device=compute.device)
    given = Batch(x, index % spec.classes, index)
    twin, fastest, began = Twin(model), {"float32": float("inf"), "bfloat16": float("inf")}, time.perf_counter()
    for done in range(MOST_ROUNDS + 1):  # the first only warms up
        for precision in fastest:
            seconds = _seconds(twin, given, replace(compute, precision=precision))
            fastest[precision] = min(fastest[precision], seconds) if done else fastest[precision]
        if done >= LEAST_ROUNDS and time.perf_counter() - began > SECONDS:
            break
    gain = fastest["float32"] / fastest["bfloat16"]
    return Choice("bfloat16" if gain >= CLEARLY else "float32", round(gain, 3))


def _seconds(twin: Twin, batch: Batch, compute: Compute) -> float:
    began = time.perf_counter()
    with compute.autocast():
        twin.gradient(batch, _goal)
    if torch.device(compute.device).type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def _goal(logits: Tensor, batch: Batch) -> Tensor:
    return torch.nn.functional.cross_entropy(logits, batch.y, reduction="none")


def _served(device: str) -> bool:
    kind = torch.device(device).type
    return kind == "cpu" or (kind == "cuda" and torch.cuda.is_bf16_supported())


def _key(compute: Compute, model: Classifier, batch: int) -> str:
    parts: list[Any] = [compute.to_json(), model.spec.to_json(), batch, torch.__version__, _machine(compute.device)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def _machine(device: str) -> list[str]:
    if torch.device(device).type == "cuda":
        return [torch.cuda.get_device_name(device)]
    return [platform.node(), platform.machine(), torch.backends.cpu.get_cpu_capability()]


def memory() -> Path:
    """The file of all choices on this machine."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "robustdistill" / "tuning.json"


@contextmanager
def _alone() -> Iterator[None]:
    """Nobody else on this machine measures or writes meanwhile, where the folder can be written to."""
    with ExitStack() as stack:
        with suppress(OSError):
            memory().parent.mkdir(parents=True, exist_ok=True)
            stream = stack.enter_context(memory().with_suffix(".lock").open("w"))
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _read() -> dict[str, Any]:
    try:
        found = json.loads(memory().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _remembered(key: str) -> Choice | None:
    try:
        found = _read()[key]
        choice = Choice(str(found["precision"]), float(found["gain"]))
    except (KeyError, TypeError, ValueError):
        return None
    return choice if choice.precision in ("float32", "bfloat16") else None


def _remember(key: str, choice: Choice) -> None:
    with suppress(OSError):  # a home that cannot be written to only costs the measurement
        write_json(memory(), _read() | {key: asdict(choice)})
