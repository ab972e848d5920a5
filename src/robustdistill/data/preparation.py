"""Raw data → prepared data: decoded, validated, de-duplicated, split, and written as memory-mappable arrays."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robustdistill.config import Data
from robustdistill.data import splits
from robustdistill.data.faults import Faults
from robustdistill.data.files import new_memmap, write_npy
from robustdistill.data.minimum import check_counts
from robustdistill.data.prepared import SPLITS, Manifest, SplitName
from robustdistill.data.raw import Raw, read_raw
from robustdistill.data.shapes import Shapes
from robustdistill.inputs import resized, shown

CHUNK = 4096  # examples held in memory at a time

Progress = Callable[[int, int], None]


def prepare(raw: Path, out: Path, data: Data, progress: Progress = lambda done, total: None) -> Manifest:
    """Reads the raw data at `raw` (any layout of raw.py) and writes prepared data into the folder `out`.

    The result is a function of content and `data` alone: neither file names nor order change a byte. progress is told
    (examples decoded, of all). Raises BadInput that names the file or the class at fault.
    """
    found = read_raw(raw)
    out.mkdir(parents=True, exist_ok=True)
    with _decoded(found, shown(raw), out, data.resize, progress) as (pixels, keys):
        official = found.official if found.has_test else None
        division = splits.divide(keys, found.labels, official, val=data.val, test=data.test)
        train = splits.limited(division.positions["train"], keys, found.labels, data.limit)
        positions = division.positions | {"train": train}
        counts = {str(name): found.counts(positions[name]) for name in SPLITS}
        check_counts(found, keys, division, counts, shown(raw))
        for name in SPLITS:
            _write(out, name, pixels, keys, found.labels, positions[name])
        mean, std = _statistics(pixels, positions["train"])
    classes, shape = found.classes, tuple(int(edge) for edge in pixels.shape[1:])
    digest = _digest(classes, shape, keys, found.labels, positions)
    manifest = Manifest(
        "image", shape, classes, 0.0, 1.0, mean, std, counts, division.removed, digest, resize=bool(data.resize)
    )
    manifest.write(out)
    return manifest


@contextmanager
def _decoded(
    raw: Raw, where: str, out: Path, edge: int | None, progress: Progress
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.void]]]:
    """All images as one array [N, C, H, W] in a file that is gone afterwards, and their content keys [N]."""
    path = out / ".pixels.npy"
    pixels: NDArray[np.uint8] | None = None
    keys = bytearray()
    faults, shapes = Faults(where), Shapes()
    try:
        for i in range(len(raw)):
            with faults.gathered():
                image = raw.image(i)
                if edge:
                    image = resized(image, edge, edge)
                if pixels is None:
                    pixels = new_memmap(path, (len(raw), *image.shape))
                if image.shape == pixels.shape[1:]:
                    pixels[i] = image
                shapes.see(image.shape, i)
                keys += splits.content_key(image)
            if i % 1000 == 999 or i == len(raw) - 1:
                progress(i + 1, len(raw))
        shapes.tell(faults, raw.place, where)
        faults.raise_any()
        assert pixels is not None  # read_raw refuses data without examples
        yield pixels, splits.unpack(bytes(keys))
    finally:
        path.unlink(missing_ok=True)


def _write(
    out: Path,
    name: SplitName,
    pixels: NDArray[np.uint8],
    keys: NDArray[np.void],
    labels: NDArray[np.int64],
    positions: NDArray[np.int64],
) -> None:
    shape = (len(positions), *pixels.shape[1:])
    x = new_memmap(out / f"{name}_x.npy", shape)
    for start in range(0, len(positions), CHUNK):
        x[start : start + CHUNK] = pixels[positions[start : start + CHUNK]]
    x.flush()
    write_npy(out / f"{name}_y.npy", labels[positions])
    write_npy(out / f"{name}_id.npy", keys["id"][positions])


def _statistics(pixels: NDArray[np.uint8], positions: NDArray[np.int64]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel in [0, 1], from whole numbers: the same on every machine."""
    values = np.arange(256, dtype=np.int64)
    counts = np.zeros((pixels.shape[1], 256), dtype=np.int64)
    for start in range(0, len(positions), CHUNK):
        chunk = pixels[positions[start : start + CHUNK]]
        for channel, row in enumerate(counts):
            row += np.bincount(chunk[:, channel].reshape(-1), minlength=256)
    total = counts.sum(axis=1)
    mean = (counts @ values) / total / 255
    variance = (counts @ values**2) / total / 255**2 - mean**2
    std = np.sqrt(np.maximum(variance, 0))
    std[std < 1e-4] = 1.0  # a constant channel carries nothing; dividing by its deviation would blow up noise
    return tuple(mean.round(8).tolist()), tuple(std.round(8).tolist())


def _digest(
    classes: list[str],
    shape: tuple[int, ...],
    keys: NDArray[np.void],
    labels: NDArray[np.int64],
    positions: Mapping[str, NDArray[np.int64]],
) -> str:
    """sha256 of classes, shape and, per split, every content key with its label."""
    digest = hashlib.sha256(json.dumps([classes, shape]).encode())
    for name in SPLITS:
        digest.update(f"{name}:{len(positions[name])}:".encode())
        digest.update(keys[positions[name]].tobytes())
        digest.update(labels[positions[name]].astype("<i8").tobytes())
    return digest.hexdigest()
