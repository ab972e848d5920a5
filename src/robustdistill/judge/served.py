"""An ONNX file as a function of inputs: what is served, and all there is of a model that comes without its weights."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from robustdistill.errors import BadInput
from robustdistill.rng import seeded

COMPARED = 32  # examples in a batch of the comparison: small, so that a module that branches shows it
SAME = 1e-4  # of logits, relative to the largest if that is above 1
_FIX = "export the model again: dvc repro export, or fetch the version again"


class Served:
    """Answers of a session of ONNX Runtime, on the processor."""

    def __init__(self, session: Any) -> None:
        self._session = session
        given = session.get_inputs()[0]
        self._name, first = given.name, (given.shape or [None])[0]
        self._fixed = first if isinstance(first, int) and first > 0 else None  # batch size that was fixed at export

    @classmethod
    def foreign(cls, path: Path, threads: int, shape: tuple[int, ...]) -> Served:
        """A file from elsewhere. Raises BadInput unless it takes float32 inputs [B, *shape] and nothing else."""
        opened = session(path, threads)
        inputs = opened.get_inputs()
        if len(inputs) != 1 or inputs[0].type != "tensor(float)":
            took = ", ".join(f"{each.name}: {each.type}" for each in inputs)
            raise BadInput(f"the file takes {took}", where=str(path), fix="export it with one input of float32 images")
        sizes = inputs[0].shape
        told = list(sizes[1:])
        if len(sizes) != len(shape) + 1 or any(isinstance(a, int) and a != b for a, b in zip(told, shape, strict=True)):
            raise BadInput(
                f"the file takes inputs of shape {sizes}, the data are (or its twin takes) {list(shape)}",
                where=str(path),
                fix="judge a model on the data it was made for, with a twin of the same inputs",
            )
        return cls(opened)

    def __call__(self, x: Tensor) -> Tensor:
        return torch.from_numpy(self.run(x.detach().cpu().numpy())).to(x.device)

    def run(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """The first output for x [B, *shape]; a file of a fixed batch size is asked as often as that takes."""
        if self._fixed is None or self._fixed == len(x):
            return self._ask(x)
        parts = []
        for begin in range(0, len(x), self._fixed):
            part = x[begin : begin + self._fixed]
            lacking = self._fixed - len(part)
            full = np.concatenate([part, np.repeat(part[-1:], lacking, axis=0)]) if lacking else part
            parts.append(self._ask(full)[: len(part)])
        return np.concatenate(parts)

    def _ask(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = self._session.run(None, {self._name: x})[0]
        return found


def traced(module: nn.Module, x: Tensor) -> Served | None:
    """A quick copy of `module` for queries without gradients; None where it cannot be made or is not a true one.

    x [N, *shape]: inputs on which the copy must give the logits of the module. Twice as fast as the module, and
    nothing rests on it but how an attack searches: what is found is tried on the module itself.
    """
    buffer = io.BytesIO()
    try:
        with _quiet(), warnings.catch_warnings(), seeded("judge", "trace"), torch.no_grad():
            warnings.simplefilter("ignore")
            axes = {"x": {0: "batch"}, "logits": {0: "batch"}}
            torch.onnx.export(
                module, (x[:2],), buffer,  # type: ignore[arg-type]  # the tracing exporter takes a stream
                dynamo=False, input_names=["x"], output_names=["logits"], dynamic_axes=axes,
            )  # fmt: skip
            copy = Served(_opened(buffer.getvalue(), torch.get_num_threads(), beside_torch=True))
            theirs = torch.cat([module(part) for part in torch.split(x, COMPARED)])
            ours = torch.cat([copy(part) for part in torch.split(x, COMPARED)])
    except Exception:  # whatever the exporter meets in code that it was not written for
        return None
    close = (ours - theirs).abs() <= SAME * theirs.abs().amax().clamp_min(1.0)  # False where anything is NaN
    return copy if bool(close.all()) else None


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints the whole graph of what it cannot export to the real stdout, into the JSON of `judge --json`,
    too; its own switch is turned on again by itself (it asks whether a function is true, not what it returns)."""
    log = torch._C._jit_onnx_log
    torch._C._jit_onnx_log = lambda *_: None
    try:
        yield
    finally:
        torch._C._jit_onnx_log = log


def session(path: Path, threads: int) -> Any:
    """ONNX Runtime on the processor. Raises BadInput for a file that it cannot run."""
    try:
        return _opened(str(path), threads)
    except Exception as error:  # its exceptions share no base class
        raise BadInput(f"ONNX Runtime cannot load the model: {error}", where=str(path), fix=_FIX) from error


def _opened(model: str | bytes, threads: int, *, beside_torch: bool = False) -> Any:
    """beside_torch: the two ask in turn, and threads that wait by spinning would take the cores from each other."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    if beside_torch:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
