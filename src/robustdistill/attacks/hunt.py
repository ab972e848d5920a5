"""Who still stands, and the worst point found for each example: what attacks for judging have in common.

An example is worked on until the model gets it wrong once, and then left alone: a verdict needs no more, and on a weak
model most of the time is saved. Draws are keyed by example, so who else still stands changes nothing for those left.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robustdistill.attacks.goals import is_wrong
from robustdistill.attacks.types import Batch, Target, select


class Hunt:
    """x [B, *shape]: the first wrong point of each example, else the one of the highest rank, else the clean input.

    clean [B, C]: the logits of batch.x. An example that the model errs on without an attack is not worked on.
    """

    def __init__(self, target: Target, batch: Batch) -> None:
        self.batch = batch
        self.clean = target.logits(batch.x)
        self.x = batch.x.clone()
        self.right = ~is_wrong(self.clean, batch.y)
        self._rank = torch.full_like(self.clean[:, 0], float("-inf"))

    def rest(self) -> tuple[Tensor, Batch]:
        """Positions int64 [n] of the examples that still stand, and these examples."""
        at = self.right.nonzero().squeeze(1)
        return at, self.batch if len(at) == len(self.right) else select(self.batch, at)

    def offer(self, at: Tensor, x_adv: Tensor, wrong: Tensor, rank: Tensor) -> None:
        """Points x_adv [n, *shape] for the positions `at`. wrong [n]: the model errs there. rank [n]: higher is nearer
        to that; comparable among all offers for one example."""
        better = wrong | (rank > self._rank[at])
        chosen = at[better]
        self.x[chosen] = x_adv[better]
        self._rank[chosen] = rank[better]
        self.right[at] &= ~wrong
