"""Which test examples are judged: a function of their content, so that the sample stays as the test set grows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustdistill.attacks.types import Batch
from robustdistill.data.prepared import Split
from robustdistill.errors import BadInput
from robustdistill.rng import Draws

NOTHING = np.empty(0, dtype=np.int64)  # no example


@dataclass(frozen=True)
class Sample:
    """The judged examples in the order of their ids. x: float32 [N, *shape]; y, index (content ids): int64 [N].

    known: how many test examples were left out because the model was trained on them.
    """

    x: Tensor
    y: Tensor
    index: Tensor
    known: int = 0

    def __len__(self) -> int:
        return len(self.y)

    @property
    def ids(self) -> NDArray[np.int64]:
        return self.index.cpu().numpy()

    @property
    def labels(self) -> NDArray[np.int64]:
        return self.y.cpu().numpy()

    def batch(self, positions: NDArray[np.int64]) -> Batch:
        """The examples at `positions` as an attack wants them."""
        at = torch.from_numpy(positions).to(self.y.device)
        return Batch(self.x[at], self.y[at], self.index[at])

    def digest(self) -> str:
        """Names exactly these examples: SHA-256 over their ids in order, 8 bytes each, little endian."""
        return hashlib.sha256(self.ids.astype("<i8").tobytes()).hexdigest()


def draw(split: Split, n: int, seed: int, device: str = "cpu", trained_on: NDArray[np.int64] = NOTHING) -> Sample:
    """The n examples of `split` (all, if fewer) with the smallest draws; each draw depends on one content id only.

    trained_on: ids that are left out: an older model may have been trained on what is in the test set today. Raises
    BadInput if nothing is left.
    """
    ids, first = np.unique(np.asarray(split.id), return_index=True)  # an official test set may hold an image twice
    fresh = ~np.isin(ids, trained_on)
    ids, first, known = ids[fresh], first[fresh], int((~fresh).sum())
    if not len(ids):
        raise BadInput("the model was trained on every example of this test set", fix="judge it on data new to it")
    keys = Draws(seed).uniform(torch.zeros(len(ids), 1), torch.from_numpy(ids), "judge/sample").numpy()[:, 0]
    chosen = np.lexsort((ids, keys))[:n]
    x, y, index = split.take(first[chosen[np.argsort(ids[chosen])]], device)
    return Sample(x, y, index, known)
