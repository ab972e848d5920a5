"""Stored adversarial examples in training: as starting points of attacks, or replayed in place of clean examples."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from robustdistill.errors import BadInput


@dataclass(frozen=True)
class Stored:
    """x_adv: uint8 [M, *shape] of the examples `id` [M]. share: of a batch that is replayed."""

    x_adv: NDArray[np.uint8]
    id: NDArray[np.int64]
    use: Literal["start", "replay"]
    share: float = 0.25

    @classmethod
    def open(cls, folder: Path, use: Literal["start", "replay"], share: float) -> Stored:
        """The training part of the set that stage `adversaries` wrote. Raises BadInput if it is missing or damaged."""
        try:
            x_adv = np.load(folder / "train_x_adv.npy", mmap_mode="r", allow_pickle=False)
            index = np.load(folder / "train_id.npy", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise BadInput(f"the stored adversarial examples cannot be read: {error}", where=str(folder)) from error
        if x_adv.dtype != np.uint8 or index.dtype != np.int64 or len(x_adv) != len(index):
            raise BadInput(
                "the stored adversarial examples are damaged", where=str(folder), fix="run adversaries again"
            )
        return cls(x_adv, index, use, share)

    def aligned(
        self, index: NDArray[np.int64], clean: NDArray[np.uint8]
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """(x [N, *shape], known [N]): the stored example of each `index` [N], the clean one where none is stored."""
        x = np.array(clean)
        if len(self.id) == 0 or self.x_adv.shape[1:] != x.shape[1:]:
            raise BadInput(f"the stored adversarial examples are none of these data: {self.x_adv.shape[1:]}")
        order = np.argsort(self.id, kind="stable")
        place = order[np.minimum(np.searchsorted(self.id, index, sorter=order), len(order) - 1)]
        known = self.id[place] == index
        x[known] = self.x_adv[place[known]]
        return x, known
