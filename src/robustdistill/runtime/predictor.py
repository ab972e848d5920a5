"""Classes and probabilities from an exported model: ONNX Runtime and the image decoding that training used.

The folder is what `export` wrote or what MLflow downloads of a registered version: model.onnx and export.json, at the
top or in one folder below. The file is used only if its hash is the one that export.json names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustdistill.errors import BadInput
from robustdistill.inputs.pixels import decode_image, resized, to_unit

MODEL, RECORD = "model.onnx", "export.json"
BATCH = 256
_FIX = "fetch or export the model again"

Input = Path | bytes | NDArray[Any]


class Predictor:
    """Answers for images. Not bound to a thread: ONNX Runtime's sessions may be shared."""

    def __init__(self, folder: Path, *, resize: bool = False, threads: int = 1) -> None:
        """resize: scale images of another size instead of refusing them; so it is done unasked where the training
        images were scaled (export.json says so), and in the same way. threads: of one answer.

        Raises BadInput if a file is missing, damaged or not the one that was exported.
        """
        place = _find(folder)
        self.record = _record(place / RECORD)
        self._session = _open(place / MODEL, str(self.record["sha256"]["onnx"]), threads)
        self._resize = resize or self.record.get("resize") is True
        self.classes: list[str] = self.record["classes"]
        self.shape: tuple[int, ...] = tuple(self.record["shape"])
        self.low, self.high = float(self.record["low"]), float(self.record["high"])

    def predict(self, images: Sequence[Input]) -> list[dict[str, Any]]:
        """One answer for each image: {"class": name, "probability": its, "probabilities": {class: probability}}.

        images: paths or bytes of encoded images, arrays uint8 [C, H, W] or [H, W], or arrays of floats [C, H, W] in
        the model's range. Raises BadInput that names the image.
        """
        answers: list[dict[str, Any]] = []
        for begin in range(0, len(images), BATCH):
            part = [self._input(image, begin + number) for number, image in enumerate(images[begin : begin + BATCH])]
            answers += [self._answer(row) for row in _softmax(self.logits(np.stack(part)))]
        return answers

    def logits(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 [B, *shape] in the model's range → float32 [B, C]."""
        found: NDArray[np.float32] = self._session.run(None, {"x": x})[0]
        return found

    def _answer(self, probabilities: NDArray[np.float64]) -> dict[str, Any]:
        best = int(probabilities.argmax())
        each = {name: float(value) for name, value in zip(self.classes, probabilities, strict=True)}
        return {"class": self.classes[best], "probability": float(probabilities[best]), "probabilities": each}

    def _input(self, image: Input, number: int) -> NDArray[np.float32]:
        where = str(image) if isinstance(image, Path) else f"image {number}"
        array = image if isinstance(image, np.ndarray) else decode_image(image, where=where)
        if array.ndim == 2:
            array = array[None]
        if array.dtype == np.uint8:
            return to_unit(self._fitting(array, where), self.low, self.high)
        return self._floats(array, where)

    def _fitting(self, pixels: NDArray[np.uint8], where: str) -> NDArray[np.uint8]:
        if self._resize and pixels.ndim == 3 and len(self.shape) == 3:
            pixels = resized(pixels, self.shape[1], self.shape[2])
        self._check_shape(pixels.shape, where)
        return pixels

    def _floats(self, array: NDArray[Any], where: str) -> NDArray[np.float32]:
        self._check_shape(array.shape, where)
        if not np.issubdtype(array.dtype, np.floating):
            raise BadInput(f"numbers of type {array.dtype} are no image", where=where, fix="give uint8 or float32")
        if not (array.min() >= self.low - 1e-6 and array.max() <= self.high + 1e-6):  # so that NaN is refused
            raise BadInput(
                f"the values are not all in [{self.low:g}, {self.high:g}]",
                where=where,
                fix="give unnormalised inputs: normalisation is a layer of the model",
            )
        return array.astype(np.float32)

    def _check_shape(self, shape: tuple[int, ...], where: str) -> None:
        if tuple(shape) == self.shape:
            return
        cause = f"the image is {_size(shape)}, the model takes {_size(self.shape)}"
        raise BadInput(cause, where=where, fix=self._remedy(shape))

    def _remedy(self, shape: tuple[int, ...]) -> str:
        """What makes an input of this shape one of the model's: other channels, another size, or both."""
        if not len(shape) == len(self.shape) == 3:
            return f"give an array of shape {list(self.shape)}"
        remedies = []
        if shape[0] != self.shape[0]:
            mode = {1: "to gray: image.convert('L') of Pillow", 3: "to RGB: image.convert('RGB') of Pillow"}
            remedies.append(f"convert it {mode.get(self.shape[0], f'to {self.shape[0]} channels')}")
        if shape[1:] != self.shape[1:]:
            remedies.append("give images of that size, or resize it (--resize)")
        return "; ".join(remedies)


def _size(shape: tuple[int, ...]) -> str:
    if len(shape) != 3:
        return f"an array of shape {list(shape)}"
    kind = {1: "gray", 3: "in colour"}.get(shape[0], f"of {shape[0]} channels")
    return f"{shape[2]} × {shape[1]} pixels {kind}"


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), dtype=np.float64)


def _find(folder: Path) -> Path:
    """The folder that holds both files: this one or one directly below."""
    below = sorted(item for item in folder.iterdir() if item.is_dir()) if folder.is_dir() else []
    for place in (folder, *below):
        if (place / MODEL).is_file() and (place / RECORD).is_file():
            return place
    raise BadInput(f"there is no exported model here ({MODEL} and {RECORD})", where=str(folder), fix=_FIX)


def _record(path: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        names, shape = record["classes"], [int(edge) for edge in record["shape"]]
        _ = record["sha256"]["onnx"], float(record["low"]), float(record["high"]), names[0], shape[0]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise BadInput("this does not describe an exported model", where=str(path), fix=_FIX) from error
    return record


def _open(path: Path, expected: str, threads: int) -> Any:
    import onnxruntime

    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        cause = f"the model is not the one that was exported: sha256 {found[:12]}…, expected {expected[:12]}…"
        raise BadInput(cause, where=str(path), fix=_FIX)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base class
        raise BadInput(f"ONNX Runtime cannot load the model: {error}", where=str(path), fix=_FIX) from error
