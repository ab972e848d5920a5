"""Who lives in the zoo: nets, and what they are hidden behind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.zoo.masks import DETECTORS, FLAT, RANDOM, SCALES, TEMPERATURE, How, Mask, abstaining
from benchmarks.zoo.nets import HONEST
from torch import Tensor, nn

Kind = Literal["honest", "original", "scale", "overfitted", "mask", "random", "detector"]


@dataclass(frozen=True)
class Animal:
    """net: one of NETS, of this seed. how: it hides; None: not at all. original: the animal whose verdicts its own are
    compared with. classes: of its answers."""

    kind: Kind
    label: str
    net: str
    seed: int
    how: How | None = None
    original: str = ""
    classes: int = 10

    @property
    def name(self) -> str:
        return f"{self.label}-{self.seed}"

    @property
    def suspicious(self) -> bool:
        return self.kind not in ("honest", "original")

    def judged(self, net: nn.Module) -> nn.Module:
        """A fresh one: some change with what they are asked."""
        return net if self.how is None else Mask(net, self.how)

    def attacked(self, net: nn.Module) -> tuple[Mask, int]:
        """As one who knows it sees it, and the number of classes: a detector that abstains errs, in whatever form."""
        if self.kind == "detector":
            return Mask(net, abstaining), 11
        return Mask(net, self.how or _itself), self.classes


def _itself(mask: Mask, x: Tensor) -> Tensor:
    logits: Tensor = mask.net(x)
    return logits


def _divided(mask: Mask, x: Tensor) -> Tensor:
    return _itself(mask, x) / TEMPERATURE


def animals(seeds: Sequence[int]) -> Iterator[Animal]:
    """The suspicious ones of the first seed, after those that they are compared with; honest ones of all seeds."""
    first = seeds[0]
    honest = [Animal("honest", name, name, seed) for seed in seeds for name in HONEST]
    yield from honest[: len(HONEST)]
    for name, how in SCALES.items():
        yield Animal("scale", name, "pgd_at", first, how, f"pgd_at-{first}")
    divided = Animal("original", "distilled-divided", "distilled", first, _divided)
    yield divided
    yield Animal("scale", "distilled-at-T100", "distilled", first, original=divided.name)
    yield Animal("overfitted", "overfitted-to-fgsm", "fgsm", first)
    for name, how in FLAT.items():
        yield Animal("mask", name, "plain", first, how)
    for name, (net, how) in RANDOM.items():
        yield Animal("random", name, net, first, how)
    for name, (how, classes) in DETECTORS.items():
        yield Animal("detector", name, "plain", first, how, classes=classes)
    yield from honest[len(HONEST) :]
