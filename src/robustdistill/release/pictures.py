"""Adversarial examples to look at: original, change, attacked image, and what each model makes of the attacked one.

The examples are not picked for looks: the first ones in the judge's order, one a class.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from robustdistill.errors import BadInput
from robustdistill.inputs import from_unit, resized, to_unit
from robustdistill.threat import ThreatModel

WATCHERS = ("initial", "teacher", "student")
EDGE = 160  # pixels; larger images are shown smaller
Array = NDArray[Any]


@dataclass(frozen=True)
class Prediction:
    """What a model says of an attacked image; known is False if that model cannot be asked."""

    model: str
    known: bool
    name: str = ""
    probability: float = 0.0
    right: bool = False


@dataclass(frozen=True)
class Picture:
    """original, change, attacked: PNG as data URIs. magnified: how many times the change is enlarged."""

    label: str
    original: str
    change: str
    attacked: str
    magnified: float
    predictions: list[Prediction]


@dataclass(frozen=True)
class Setting:
    """What all examples of a run share."""

    artifacts: Path
    classes: list[str]
    shape: tuple[int, ...]
    threat: ThreatModel

    @classmethod
    def of(cls, artifacts: Path, manifest: Mapping[str, Any], threat: Mapping[str, Any]) -> Setting:
        """Raises BadInput if the inputs are no images."""
        shape = tuple(int(size) for size in manifest["shape"])
        if len(shape) != 3 or shape[0] not in (1, 3):
            raise BadInput(f"the inputs have shape {shape}: they are no images, so there is nothing to show")
        return cls(artifacts, [str(name) for name in manifest["classes"]], shape, ThreatModel.from_json(dict(threat)))

    def class_name(self, index: int) -> str:
        return self.classes[index] if 0 <= index < len(self.classes) else str(index)


def gallery(setting: Setting, target: str, *, broken: int, held: int) -> list[Picture]:
    """Pictures of attacks made against `target`: up to `broken` that fooled it and `held` that did not.

    Raises BadInput, OSError or ValueError if files are missing or do not fit.
    """
    folder = setting.artifacts / "score" / target
    ids, labels, clean = (_load(folder / f"{stem}.npy") for stem in ("ids", "labels", "predictions"))
    attacked = _load(folder / "x_adv.npy")
    if not len(ids) == len(labels) == len(clean) == len(attacked) or attacked.shape[1:] != setting.shape:
        raise BadInput(f"the files of score/{target} do not fit each other")
    right = np.flatnonzero(clean == labels)
    robust = _robust(folder, len(ids))
    rows = [*first_of_each(right[~robust[right]], labels, broken), *first_of_each(right[robust[right]], labels, held)]
    positions = np.array(rows, dtype=np.int64)
    if not len(positions):
        return []
    x_adv = _unit(np.array(attacked[positions]), setting.threat)
    x = _originals(setting, ids[positions])
    logits = {model: _logits(setting, model, x_adv) for model in WATCHERS}
    return [picture(setting, x[k], x_adv[k], int(labels[row]), _at(logits, k)) for k, row in enumerate(positions)]


def _at(logits: Mapping[str, list[Array] | None], k: int) -> dict[str, Array | None]:
    return {model: None if rows is None else rows[k] for model, rows in logits.items()}


def _robust(folder: Path, n: int) -> NDArray[np.bool_]:
    """Right under every attack [N]."""
    flags = [_load(path) for path in sorted((folder / "outcomes").glob("*.npy"))]
    if not flags or any(flag.shape != (n,) for flag in flags):
        raise BadInput(f"the outcomes in {folder.name} do not fit the sample")
    worst: NDArray[np.bool_] = np.all(np.stack(flags).astype(bool), axis=0)
    return worst


def first_of_each(positions: Array, labels: Array, count: int) -> list[int]:
    """The first `count` positions with different labels; where classes run out, the next ones whatever their label."""
    _, first = np.unique(labels[positions], return_index=True)
    order = [*sorted(first), *(k for k in range(len(positions)) if k not in set(first))]
    return [int(positions[k]) for k in order[:count]]


def _originals(setting: Setting, ids: Array) -> Array:
    folder = setting.artifacts / "prepare"
    known = _load(folder / "test_id.npy")
    order = np.argsort(known)
    at = np.searchsorted(known, ids, sorter=order).clip(max=len(known) - 1)
    positions = order[at]
    if not np.array_equal(known[positions], ids):
        raise BadInput("a judged example is not in the test data")
    return _unit(np.array(_load(folder / "test_x.npy")[positions]), setting.threat)


def _unit(x: Array, threat: ThreatModel) -> Array:
    return to_unit(x, threat.low, threat.high) if x.dtype == np.uint8 else x.astype(np.float32)


def _load(path: Path) -> Array:
    array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def _logits(setting: Setting, model: str, x: Array) -> list[Array] | None:
    """Logits [B, C] of an exported model as ONNX Runtime computes them, or None if it is not there."""
    path = setting.artifacts / "export" / model / "model.onnx"
    if not path.exists():
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        out = session.run(None, {session.get_inputs()[0].name: x})[0]
    except Exception as error:  # ONNX Runtime raises its own kinds for a damaged file or a wrong shape
        raise BadInput(f"export/{model}/model.onnx cannot be run: {type(error).__name__}") from error
    return list(np.asarray(out))


def picture(setting: Setting, x: Array, x_adv: Array, label: int, logits: Mapping[str, Array | None]) -> Picture:
    """x, x_adv: [C, H, W]. logits: model -> its logits [C] of x_adv, None if it cannot be asked."""
    span = setting.threat.high - setting.threat.low
    change = (x_adv - x) / span
    reach = setting.threat.eps / span if setting.threat.norm == "linf" else float(np.abs(change).max())
    factor = 0.5 / max(reach, 1e-6)
    unit = setting.threat.low, setting.threat.high
    return Picture(
        setting.class_name(label),
        _png(from_unit(x, *unit)),
        _png(from_unit(0.5 + factor * change)),
        _png(from_unit(x_adv, *unit)),
        factor,
        [_prediction(setting, model, out, label) for model, out in logits.items()],
    )


def _prediction(setting: Setting, model: str, logits: Array | None, label: int) -> Prediction:
    if logits is None:
        return Prediction(model, known=False)
    odds = np.exp(logits.astype(np.float64) - logits.max())
    best = int(np.argmax(logits))
    return Prediction(model, True, setting.class_name(best), float(odds[best] / odds.sum()), best == label)


def _png(pixels: NDArray[np.uint8]) -> str:
    """uint8 [C, H, W] as a data URI."""
    edge = max(pixels.shape[1:])
    if edge > EDGE:
        height, width = (max(1, round(size * EDGE / edge)) for size in pixels.shape[1:])
        pixels = resized(pixels, height, width)
    stream = io.BytesIO()
    Image.fromarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1)).save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
