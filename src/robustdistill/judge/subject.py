"""The model under judgement: its weights for attacks by gradient, its exported file for what is served."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustdistill.attacks.goals import is_wrong
from robustdistill.engine.devices import Compute
from robustdistill.errors import BadInput
from robustdistill.models import weights
from robustdistill.models.classifier import Classifier

BATCH = 256  # examples in one forward pass outside attacks
# What export.json names by hash. trained_on: content ids of the examples that the model was trained or selected on.
FILES = {"onnx": "model.onnx", "safetensors": "model.safetensors", "trained_on": "trained_on.npy"}
_FIX = "export the model again: dvc repro export, or fetch the version again"


class Reply(NamedTuple):
    """What both forms of the model say of some inputs. right: by both; only_served_wrong: PyTorch right, ONNX not.

    margin [B]: max_{k≠y} z_k − z_y of PyTorch's logits; above 0 is wrong, and the higher, the nearer to it.
    """

    right: NDArray[np.bool_]
    only_served_wrong: NDArray[np.bool_]
    margin: NDArray[np.float32]


@dataclass(frozen=True)
class Subject:
    """One folder that `export` wrote, opened. model: float32, eval mode, weights frozen. trained_on: content ids."""

    model: Classifier
    session: Any
    record: dict[str, Any]
    trained_on: NDArray[np.int64]

    @classmethod
    def open(cls, folder: Path, compute: Compute) -> Subject:
        """Raises BadInput if a file is missing or is not the one that export.json names."""
        record = _record(folder / "export.json")
        for kind, name in FILES.items():
            _check(folder / name, str(record["sha256"][kind]))
        model = weights.load(folder).to(device=compute.device, dtype=torch.float32).eval()
        model.requires_grad_(False)
        trained_on = np.load(folder / FILES["trained_on"], allow_pickle=False)
        return cls(model, session(folder / FILES["onnx"], compute.threads), record, trained_on)

    def logits(self, x: Tensor) -> Tensor:
        """PyTorch's logits, float32 [B, C]."""
        with torch.no_grad():
            return torch.cat([self.model(part) for part in torch.split(x, BATCH)])

    def served(self, x: Tensor) -> NDArray[np.float32]:
        """The logits of the exported file, float32 [B, C]."""
        parts = [self.session.run(None, {"x": part.cpu().numpy()})[0] for part in torch.split(x, BATCH)]
        return np.concatenate(parts)

    def reply(self, x: Tensor, y: Tensor) -> Reply:
        """Is `x` [B, *shape] still classified as `y` [B]? Equal logits within 1e-4 do not prove equal verdicts at the
        boundary, so both forms are asked and the worse answer counts."""
        logits, labels = self.logits(x), y.cpu().numpy()
        own = logits.gather(1, y[:, None]).squeeze(1)
        other = logits.scatter(1, y[:, None], -torch.inf).amax(1)
        right = ~is_wrong(logits, y).cpu().numpy()
        served = predictions(self.served(x)) == labels
        return Reply(right & served, right & ~served, (other - own).cpu().numpy())


def predictions(logits: NDArray[np.float32]) -> NDArray[np.int64]:
    """[B, C] → classes [B]; −1, which no label is, where a logit is not a number."""
    return np.where(np.isnan(logits).any(1), -1, logits.argmax(1)).astype(np.int64)


def session(path: Path, threads: int) -> Any:
    """ONNX Runtime on the processor. Raises BadInput for a file that it cannot run."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base class
        raise BadInput(f"ONNX Runtime cannot load the model: {error}", where=str(path), fix=_FIX) from error


def _record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if set(record["sha256"]) != set(FILES):
            raise KeyError("sha256")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput("this is not an exported model", where=str(path), fix=_FIX) from error
    found: dict[str, Any] = record
    return found


def _check(path: Path, expected: str) -> None:
    try:
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise BadInput("a file of the exported model is missing", where=str(path), fix=_FIX) from error
    if found != expected:
        cause = f"the file is not the one that was exported: sha256 {found[:12]}…, expected {expected[:12]}…"
        raise BadInput(cause, where=str(path), fix=_FIX)
