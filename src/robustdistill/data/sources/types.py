"""What a source is: typed options, and `write`, which makes the same bytes each time."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from robustdistill.config import Strict
from robustdistill.data.arrays import CLASSES, PAIRS
from robustdistill.data.files import write_json, write_npy


class Source(ABC):
    """Base of the sources. `config` holds what the user gave; write(folder) fills an empty folder with raw data."""

    name: ClassVar[str]

    class Config(Strict):
        """Options; each source has its own."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def write(self, folder: Path) -> None:
        """Raises BadInput if the data cannot be had, with what to do about it."""


def write_arrays(folder: Path, arrays: Mapping[str, NDArray[Any]], classes: list[str]) -> None:
    """train_x, train_y[, test_x, test_y] as .npy files, and the class names; byte-stable."""
    for name in PAIRS:
        if name in arrays:
            array = arrays[name]
            write_npy(folder / f"{name}.npy", array.astype(np.int64) if name.endswith("_y") else array)
    write_json(folder / CLASSES, classes)


def cache_root() -> Path:
    """Where downloads are kept if no path is given."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "robustdistill"
