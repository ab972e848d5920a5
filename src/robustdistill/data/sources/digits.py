"""scikit-learn's digits: 1,797 handwritten digits, 8 × 8 gray, shipped with the library. The demo needs no download."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robustdistill.data.sources.types import Source, write_arrays
from robustdistill.data.splits import chance, content_key, unpack

LEVELS = 16  # the library's values are 0..16
TEST_SHARE = 0.25


def to_bytes(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """0..16 → 0..255, rounded half up; `to_levels` undoes it exactly."""
    return ((values.astype(np.int64) * 255 + LEVELS // 2) // LEVELS).astype(np.uint8)


def to_levels(x: NDArray[np.uint8]) -> NDArray[np.int64]:
    """0..255 → the nearest of 0..16."""
    return (x.astype(np.int64) * LEVELS + 127) // 255


class Digits(Source):
    """Test set: TEST_SHARE of the images, by content, so that the same images are in it for everyone."""

    name = "digits"

    def write(self, folder: Path) -> None:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        x, y = to_bytes(bunch.images)[:, None], bunch.target
        keys = unpack(b"".join(content_key(image) for image in x))
        test = chance(keys["test"]) < TEST_SHARE
        arrays = {"train_x": x[~test], "train_y": y[~test], "test_x": x[test], "test_y": y[test]}
        write_arrays(folder, arrays, [str(digit) for digit in range(10)])
