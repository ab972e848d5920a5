"""The model under judgement: its weights for attacks by gradient, and its exported file, if any, for what is served.

It is opened from an export, or made of any torch module, or of an ONNX file alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from robustdistill.attacks import Access
from robustdistill.attacks.goals import is_wrong
from robustdistill.data.seen import unknown_of
from robustdistill.engine.devices import Compute
from robustdistill.errors import BadInput
from robustdistill.judge import foreign
from robustdistill.judge.anew import Anew
from robustdistill.judge.sample import NOTHING
from robustdistill.judge.served import Served, session
from robustdistill.models import parameters, weights
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
    """A model under judgement, whatever it came from.

    model: float32, eval mode, weights frozen; logits [B, C] of inputs [B, *shape] in [low, high]. names: of the C
    classes. about: what the scorecard says of it. key: names it for resuming. file: what is served, if it is another
    form of the model. trained_on: content ids that are not judged. unknown: models it comes from
    of which nobody knows what they were trained on. access: what an attacker may use. anew: loads it in another
    process, where that can be done.
    """

    model: nn.Module
    shape: tuple[int, ...]
    names: list[str]
    low: float
    high: float
    about: dict[str, Any]
    key: Any
    file: Served | None = None
    trained_on: NDArray[np.int64] = field(default_factory=lambda: NOTHING)
    unknown: tuple[str, ...] = ()
    access: Access = Access.GRADIENT
    anew: Anew | None = None

    @classmethod
    def open(cls, folder: Path, compute: Compute) -> Subject:
        """A folder that `export` wrote. Raises BadInput if a file is missing or not the one that export.json names."""
        record = _record(folder / "export.json")
        for kind, name in FILES.items():
            _check(folder / name, str(record["sha256"][kind]))
        model, names = weights.load(folder), list(record.get("classes", []))
        if len(names) != model.spec.classes:
            raise BadInput("export.json does not name the model's classes", where=str(folder), fix=_FIX)
        file = Served(session(folder / FILES["onnx"], compute.threads))
        trained_on = np.load(folder / FILES["trained_on"], allow_pickle=False)
        found = cls.of_classifier(
            model, record["sha256"]["safetensors"], compute.device,
            names=names, onnx=record["sha256"]["onnx"], file=file, trained_on=trained_on,
        )  # fmt: skip
        return replace(found, unknown=unknown_of(record))

    @classmethod
    def of_classifier(
        cls,
        model: Classifier,
        sha256: str,
        device: str,
        *,
        names: list[str] | None = None,
        onnx: str | None = None,
        file: Served | None = None,
        trained_on: NDArray[np.int64] = NOTHING,
    ) -> Subject:
        """One of the project's models. sha256: of its weights. onnx, file: of its exported form, if there is one."""
        spec = model.spec
        model = model.to(device=device, dtype=torch.float32).eval()
        model.requires_grad_(False)
        about = _about(sha256, onnx, parameters(model), model.spec.architecture, Access.GRADIENT)
        names = numbered(spec.classes) if names is None else names
        return cls(model, spec.shape, names, spec.low, spec.high, about, [sha256, onnx], file, trained_on)

    @classmethod
    def of_module(
        cls,
        module: nn.Module,
        *,
        shape: Sequence[int],
        classes: int,
        low: float = 0.0,
        high: float = 1.0,
        names: Sequence[str] | None = None,
        device: str = "cpu",
    ) -> Subject:
        """Any torch module of inputs in [low, high]; it is put into evaluation mode, its weights are frozen.

        names: of the classes, default "0", "1", …. What it serves are its own logits. Raises BadInput if there is not
        one name for each class.
        """
        if names is not None and len(names) != classes:
            raise BadInput(f"{len(names)} class names for a model of {classes} classes")
        sha256 = foreign.digest(module)
        model = foreign.Foreign(foreign.frozen(module.to(device)), classes).eval()
        about = _about(sha256, None, parameters(module), type(module).__name__, Access.GRADIENT)
        found = numbered(classes) if names is None else list(names)
        return cls(model, tuple(shape), found, low, high, about, [sha256, None])

    def as_file(self, path: Path, compute: Compute) -> Subject:
        """The same model, served by an ONNX file from elsewhere: this one is its twin. Raises BadInput."""
        file, onnx = Served.foreign(path, compute.threads, self.shape), weights.digest(path)
        return replace(self, file=file, about={**self.about, "onnx_sha256": onnx}, key=[self.about["sha256"], onnx])

    @classmethod
    def of_file(cls, path: Path, compute: Compute, *, shape: Sequence[int], names: Sequence[str]) -> Subject:
        """An ONNX file alone, inputs in [0, 1]: scores can be asked for, gradients cannot. Raises BadInput."""
        file, sha256 = Served.foreign(path, compute.threads, tuple(shape)), weights.digest(path)
        about = _about(sha256, sha256, None, "ONNX file", Access.SCORES)
        model = foreign.Foreign(file, len(names)).eval()
        return cls(model, tuple(shape), list(names), 0.0, 1.0, about, sha256, access=Access.SCORES)

    @property
    def classes(self) -> int:
        return len(self.names)

    def logits(self, x: Tensor) -> Tensor:
        """PyTorch's logits, float32 [B, C]."""
        with torch.no_grad():
            return torch.cat([self.model(part) for part in torch.split(x, BATCH)])

    def served(self, x: Tensor) -> NDArray[np.float32]:
        """The logits of what is served, float32 [B, C]: the exported file, or the module itself if there is none."""
        if self.file is None:
            return self.logits(x).cpu().numpy()
        return np.concatenate([self.file.run(part.cpu().numpy()) for part in torch.split(x, BATCH)])

    def reply(self, x: Tensor, y: Tensor) -> Reply:
        """Is `x` [B, *shape] still classified as `y` [B]? Equal logits within 1e-4 do not prove equal verdicts at the
        boundary, so both forms are asked and the worse answer counts."""
        logits, labels = self.logits(x), y.cpu().numpy()
        own = logits.gather(1, y[:, None]).squeeze(1)
        other = logits.scatter(1, y[:, None], -torch.inf).amax(1)
        sure = torch.isfinite(logits).all(1) & (own > other)  # two classes alike are no answer
        right = (sure & ~is_wrong(logits, y)).cpu().numpy()
        served = right if self.file is None else predictions(self.served(x)) == labels
        return Reply(right & served, right & ~served, (other - own).cpu().numpy())


def numbered(classes: int) -> list[str]:
    """Names of classes that have none: "0", "1", …"""
    return [str(number) for number in range(classes)]


def _about(sha256: str, onnx: str | None, count: int | None, architecture: str, access: Access) -> dict[str, Any]:
    return {
        "sha256": sha256,
        "onnx_sha256": onnx,
        "parameters": count,
        "architecture": architecture,
        "access": access.name.lower(),
    }


def predictions(logits: NDArray[np.float32]) -> NDArray[np.int64]:
    """[B, C] → classes [B]; −1, which no label is, where a logit is not a number."""
    return np.where(np.isnan(logits).any(1), -1, logits.argmax(1)).astype(np.int64)


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
