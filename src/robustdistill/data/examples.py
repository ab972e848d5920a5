"""Labelled images that are only judged: all of an .npz, of class folders, or the test part of prepared data.

Nothing is split, dropped or rounded: floats reach the model as they are, and an image that is there twice counts twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustdistill.data import arrays, splits
from robustdistill.data.prepared import MANIFEST, Prepared, Split
from robustdistill.data.raw import Raw, read_raw
from robustdistill.errors import BadInput
from robustdistill.inputs import shown


@dataclass(frozen=True)
class Examples:
    """x: uint8, or float32 in [0, 1], [N, *shape]; y: int64 [N]; id: int64 [N], distinct. names: of classes, if known.

    bounds: the range of a model's input, where the data say so (prepared data do).
    """

    x: NDArray[Any]
    y: NDArray[np.int64]
    id: NDArray[np.int64]
    names: list[str] | None = None
    bounds: tuple[float, float] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(size) for size in self.x.shape[1:])

    def __len__(self) -> int:
        return len(self.y)

    def split(self, low: float = 0.0, high: float = 1.0) -> Split:
        """As a test set of inputs in [low, high]."""
        return Split("test", self.x, self.y, self.id, low, high)


def read(path: Path) -> Examples:
    """The examples at `path`: an .npz with images and labels (or test_images and test_labels, if it holds them), a
    folder with a folder for each class (its official test set, if it holds one), or prepared data. Raises BadInput."""
    if (path / MANIFEST).is_file():
        prepared = Prepared.open(path)
        split, manifest = prepared.split("test"), prepared.manifest
        return Examples(split.x, split.y, split.id, list(manifest.classes), (manifest.low, manifest.high))
    if path.is_file():
        return _of_npz(path)
    return _of_raw(read_raw(path), path)


def _of_npz(path: Path) -> Examples:
    found = arrays.load_npz(path)
    stems = ("test_images", "test_labels") if "test_images" in found else ("images", "labels")
    for stem in stems:
        if stem not in found:
            raise BadInput(f"{stem} is missing", where=shown(path), fix="images and labels come in pairs")
    where = f"{shown(path)}, {stems[0]}"
    y = arrays.labels(found[stems[1]], f"{shown(path)}, {stems[1]}")
    layout = arrays.layout(found[stems[0]], len(y), where)
    if not len(y):
        raise BadInput("there are no examples", where=where)
    x = _in_range(_channels_first(found[stems[0]], layout), where)
    return Examples(x, y, _ids(x))


def _channels_first(x: NDArray[Any], layout: str) -> NDArray[Any]:
    if layout == "hw":
        return x[:, None]
    return x if layout == "chw" else np.moveaxis(x, -1, 1)


def _in_range(x: NDArray[Any], where: str) -> NDArray[Any]:
    """uint8, or float32 in [0, 1]. Raises BadInput that names the first image outside."""
    if x.dtype == np.uint8:
        return np.ascontiguousarray(x)
    top = 1 if x.dtype.kind == "f" else 255
    flat = x.reshape(len(x), -1)
    bad = ~((flat >= 0) & (flat <= top)).all(axis=1)  # so that NaN is refused
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise BadInput(
            f"example {first} has values from {flat[first].min():g} to {flat[first].max():g}",
            where=where,
            fix=f"values of type {x.dtype} are in [0, {top}]; normalisation belongs into the model",
        )
    return np.ascontiguousarray(x, dtype=np.float32 if top == 1 else np.uint8)


def _of_raw(raw: Raw, path: Path) -> Examples:
    chosen = np.flatnonzero(raw.official) if raw.has_test else np.arange(len(raw))
    images = []
    for number in chosen:
        images.append(raw.image(int(number)))
        if images[-1].shape != images[0].shape:
            raise BadInput(
                f"images of shape {list(images[-1].shape)} and of {list(images[0].shape)}",
                where=raw.place(int(number)),
                fix="make them one size, all gray or all RGB",
            )
    if not images:
        raise BadInput("there are no examples", where=shown(path))
    x = np.stack(images)
    return Examples(x, raw.labels[chosen], _ids(x), list(raw.classes))


def _ids(x: NDArray[Any]) -> NDArray[np.int64]:
    """Content ids; of equal images only the first has that of its content, so that no two are the same."""
    keys = splits.unpack(b"".join(splits.content_key(image) for image in x))["id"].astype(np.int64)
    seen: dict[int, int] = {}
    for position, key in enumerate(keys.tolist()):
        seen[key] = seen.get(key, -1) + 1
        if seen[key]:
            again = splits.content_key(np.frombuffer(f"{key} {seen[key]}".encode(), dtype=np.uint8))
            keys[position] = splits.unpack(again)["id"][0]
    return keys
