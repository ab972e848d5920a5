"""Prepared data on disk: memory-mapped arrays per split and a manifest of all that was learnt from the data.

train|val|test_x.npy   uint8 [N, *shape]      _y.npy   int64 [N], class      _id.npy   int64 [N], content id
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from robustdistill.data.files import write_json
from robustdistill.errors import BadInput
from robustdistill.inputs.pixels import to_unit

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")
MANIFEST = "manifest.json"
FORMAT = 1

_FIX = "prepare the data again: robustdistill run"


@dataclass(frozen=True)
class Manifest:
    """What the data are. shape: of one example, (C, H, W). low, high: bounds of the model's input.

    mean, std: per channel of train, in input units. counts: {split: examples of each class}.
    removed: {reason: examples that left train}. data_digest: sha256 of all contents, labels and splits.
    resize: whether images of any size were scaled to `shape`; written only where they were.
    """

    kind: Literal["image"]
    shape: tuple[int, ...]
    classes: list[str]
    low: float
    high: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    counts: dict[str, list[int]]
    removed: dict[str, int]
    data_digest: str
    format: int = field(default=FORMAT)
    resize: bool = False

    def to_json(self) -> dict[str, Any]:
        record = asdict(self)
        return record if self.resize else {key: value for key, value in record.items() if key != "resize"}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Manifest:
        """Raises KeyError or TypeError for a record that is none."""
        tuples = {key: tuple(record[key]) for key in ("shape", "mean", "std")}
        return cls(**{**record, **tuples})

    def write(self, folder: Path) -> None:
        write_json(folder / MANIFEST, self.to_json())


@dataclass(frozen=True)
class Split:
    """One split. x: uint8 [N, *shape], on disk until indexed; y: int64 [N]; id: int64 [N].

    Data that are only judged may be floats in [0, 1] instead of uint8.
    """

    name: SplitName
    x: NDArray[Any]
    y: NDArray[np.int64]
    id: NDArray[np.int64]
    low: float = 0.0
    high: float = 1.0

    def __len__(self) -> int:
        return len(self.y)

    def take(
        self, positions: NDArray[np.integer[Any]], device: torch.device | str = "cpu"
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The examples at `positions` [B]: x float32 [B, *shape] in [low, high], y int64 [B], index int64 [B]."""
        import torch

        chosen = self.x[positions]
        if chosen.dtype == np.uint8:
            chosen = to_unit(chosen, self.low, self.high)
        elif (self.low, self.high) != (0.0, 1.0):
            chosen = np.float32(self.low) + chosen * np.float32(self.high - self.low)
        x = torch.from_numpy(chosen)
        y, index = torch.from_numpy(self.y[positions]), torch.from_numpy(self.id[positions])
        return x.to(device), y.to(device), index.to(device)


@dataclass(frozen=True)
class Prepared:
    """A folder that `prepare` wrote."""

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: Path) -> Prepared:
        """Raises BadInput if the manifest is missing, damaged, or of another version."""
        path = folder / MANIFEST
        try:
            manifest = Manifest.from_json(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            raise BadInput("there are no prepared data", where=str(path), fix=_FIX) from error
        except (ValueError, KeyError, TypeError) as error:
            raise BadInput("this is not a manifest of prepared data", where=str(path), fix=_FIX) from error
        if manifest.format != FORMAT:
            raise BadInput(f"prepared data of format {manifest.format}, not {FORMAT}", where=str(path), fix=_FIX)
        return cls(folder, manifest)

    def split(self, name: SplitName) -> Split:
        """Raises BadInput if the arrays are missing or do not fit the manifest."""
        x, y, id = (self._array(name, part) for part in ("x", "y", "id"))
        n = sum(self.manifest.counts[name])
        fits = x.shape == (n, *self.manifest.shape) and y.shape == id.shape == (n,)
        if not fits or [a.dtype.name for a in (x, y, id)] != ["uint8", "int64", "int64"]:
            raise BadInput(f"the arrays of {name} do not fit the manifest", where=str(self.folder), fix=_FIX)
        return Split(name, x, np.array(y), np.array(id), self.manifest.low, self.manifest.high)

    def _array(self, split: str, part: str) -> NDArray[Any]:
        path = self.folder / f"{split}_{part}.npy"
        try:
            array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise BadInput("the array is missing or damaged", where=str(path), fix=_FIX) from error
        return array
