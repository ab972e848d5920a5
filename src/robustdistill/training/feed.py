"""Batches out of memory: the whole split stays as bytes on the device, and 256 floats turn bytes into inputs."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustdistill.inputs.pixels import to_unit
from robustdistill.models.spec import ModelSpec
from robustdistill.training.job import Examples


class Bytes:
    """uint8 [N, *shape] on a device; `take` gives float32 [B, *shape], equal to inputs.pixels.to_unit."""

    def __init__(self, x: NDArray[np.uint8], spec: ModelSpec, device: str) -> None:
        self.x = torch.from_numpy(np.array(x)).to(device)
        levels = to_unit(np.arange(256, dtype=np.uint8), spec.low, spec.high)
        self.levels = torch.from_numpy(levels).to(device)

    def take(self, positions: Tensor) -> Tensor:
        chosen = self.x[positions]
        return self.levels.index_select(0, chosen.reshape(-1).int()).view(chosen.shape)


class Feed:
    """A split, ready to be cut into batches."""

    def __init__(self, split: Examples, spec: ModelSpec, device: str) -> None:
        self._bytes = Bytes(split.x, spec, device)
        self._y = torch.from_numpy(np.array(split.y, dtype=np.int64)).to(device)
        self._id = torch.from_numpy(np.array(split.id, dtype=np.int64)).to(device)

    def __len__(self) -> int:
        return len(self._y)

    def largest_class(self, positions: NDArray[np.int64]) -> float:
        """Share of the most frequent class: what a model that always gives the same answer gets right."""
        counts = np.bincount(self._y.cpu().numpy()[positions])
        return float(counts.max()) / len(positions)

    def take(self, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x float32 [B, *shape] in [low, high], y int64 [B], index int64 [B]."""
        return self._bytes.take(positions), self._y[positions], self._id[positions]
