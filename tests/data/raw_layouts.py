"""Small data sets in every layout; their pixels are a hash of a name, so that nothing here is random."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]


def noise(name: str, shape: tuple[int, ...] = (1, 8, 8)) -> Pixels:
    """uint8 image [C, H, W] that belongs to `name`."""
    content = hashlib.shake_256(name.encode("utf-8", "surrogateescape")).digest(math.prod(shape))
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def save_image(path: Path, pixels: Pixels, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1)).save(path, **options)


def write_folders(
    root: Path, classes: Iterable[str] = ("cat", "dog"), n: int = 120, shape: tuple[int, ...] = (1, 8, 8)
) -> Path:
    """ROOT/<class>/<i>.png."""
    for name in classes:
        for i in range(n):
            save_image(root / name / f"{i}.png", noise(f"{name}/{i}", shape))
    return root


def write_pairs(root: Path, n: int = 240, **changed: NDArray[np.generic]) -> Path:
    """ROOT/train_x.npy and train_y.npy of two classes; `changed` replaces or adds arrays."""
    arrays: dict[str, NDArray[np.generic]] = {
        "train_x": np.stack([noise(f"train/{i}") for i in range(n)]),
        "train_y": np.arange(n) % 2,
    }
    root.mkdir(parents=True, exist_ok=True)
    for name, array in (arrays | changed).items():
        np.save(root / f"{name}.npy", array)
    return root
