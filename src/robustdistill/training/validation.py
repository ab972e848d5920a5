"""How good a model is on validation data: the figure that selects a checkpoint. The test set is never touched."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustdistill import attacks
from robustdistill.attacks.types import Batch, TorchTarget
from robustdistill.engine.devices import Compute
from robustdistill.models.classifier import Classifier
from robustdistill.rng import Draws
from robustdistill.threat import ThreatModel
from robustdistill.training.feed import Feed
from robustdistill.training.job import Examples, Result

CHUNK = 512


@dataclass(frozen=True)
class Accuracy:
    """Shares of right answers; fgsm and pgd are None where they were not measured."""

    clean: float
    fgsm: float | None = None
    pgd: float | None = None

    @property
    def rank(self) -> tuple[float, float]:
        """What the best epoch is chosen by: robust accuracy first, clean where it is equal or not measured."""
        return (self.clean if self.pgd is None else self.pgd, self.clean)


class Validation:
    """The same examples and the same attack starts at every call: differences between epochs are the model's."""

    def __init__(
        self, feed: Feed, examples: int, threat: ThreatModel, draws: Draws, compute: Compute, *, robust: bool
    ) -> None:
        chosen = draws.choice(len(feed), min(examples, len(feed)), "select")
        self.examples = len(chosen)
        self.chance = feed.largest_class(chosen)
        self._feed, self._threat, self._draws, self._compute, self._robust = feed, threat, draws, compute, robust
        self._positions = torch.from_numpy(chosen).to(compute.device)
        self._fgsm = attacks.build({"name": "fgsm"}, "validation")
        self._pgd = attacks.build({"name": "pgd", "steps": 10}, "validation")

    def measure(self, model: Classifier) -> Accuracy:
        """`model` must be in eval mode."""
        right = torch.zeros(3, dtype=torch.int64, device=self._compute.device)
        for positions in torch.split(self._positions, CHUNK):
            right += self._right(model, Batch(*self._feed.take(positions)))
        clean, fgsm, pgd = (float(count) / self.examples for count in right.tolist())
        return Accuracy(clean, fgsm, pgd) if self._robust else Accuracy(clean)

    def _right(self, model: Classifier, batch: Batch) -> Tensor:
        inputs = [batch.x]
        if self._robust:
            target = TorchTarget(model)
            for attack in (self._fgsm, self._pgd):
                with self._compute.autocast():
                    inputs.append(attack(target, batch, self._threat, self._draws))
        with torch.no_grad():
            counts = [(model(x).argmax(1) == batch.y).sum() for x in inputs]
        return torch.stack([*counts, *[counts[0].new_zeros(())] * (3 - len(counts))])


def measured(
    model: Classifier, val: Examples, threat: ThreatModel, examples: int, seed: int, compute: Compute
) -> Result:
    """A finished model as the result of a training of no steps: measured as an epoch would be."""
    model = model.eval().to(compute.device)
    feed = Feed(val, model.spec, compute.device)
    draws = Draws(seed).fold("validation")
    accuracy = Validation(feed, examples, threat, draws, compute, robust=True).measure(model)
    row = {"epoch": 0, "step": 0, "val_clean": accuracy.clean, "val_pgd": accuracy.pgd}
    model = model.to("cpu")
    return Result(model, model, 0, [row], [])
