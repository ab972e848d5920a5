"""Attacks that know how a model of the zoo works: what its robustness is worth."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from benchmarks.zoo.masks import Mask, suspected
from torch import Tensor, nn

from robustdistill.attacks import TorchTarget, build
from robustdistill.attacks.adaptive import ExpectedTarget
from robustdistill.attacks.types import Target
from robustdistill.config import Spec
from robustdistill.judge.sample import Sample
from robustdistill.judge.subject import Subject
from robustdistill.rng import Draws, derive
from robustdistill.threat import ThreatModel

ATTACK: Spec = {"name": "pgd", "steps": 40, "goal": "margin", "keep": "best"}
CLAIM: Spec = {"name": "pgd", "steps": 20}
ONE_STEP: Spec = {"name": "fgsm"}
EOT = 8  # forward passes of an expectation
KNOWN = 999  # the call whose noise an attacker waits for, who knows how often the model was asked


class Foreseen(nn.Module):
    """The mask as it will answer its call KNOWN, whenever it is asked. Noise depends on the place in the batch, too."""

    def __init__(self, mask: Mask) -> None:
        super().__init__()
        self.mask = mask

    def forward(self, x: Tensor) -> Tensor:
        self.mask.asked = KNOWN - 1
        logits: Tensor = self.mask(x)
        return logits


def _targets(mask: Mask, *, random: bool) -> Iterator[tuple[str, Target]]:
    yield "net", TorchTarget(mask.net)
    if random:
        yield "expectation", ExpectedTarget(TorchTarget(mask), EOT)
        yield "noise foreseen", TorchTarget(Foreseen(mask))


def left(mask: Mask, sample: Sample, threat: ThreatModel, classes: int, *, random: bool) -> dict[str, float]:
    """Share of the sample that stands before each attack: on the net behind the mask, replayed through it; where it is
    random, on its expectation, and on the very noise of the answer that counts; "all": before the worst of them."""
    attack, batch = build(ATTACK, "zoo"), sample.batch(np.arange(len(sample)))
    subject = Subject.of_module(mask, shape=sample.x.shape[1:], classes=classes)
    standing = subject.reply(sample.x, sample.y).right
    found: dict[str, float] = {}
    for number, (name, target) in enumerate(_targets(mask, random=random)):
        x_adv = attack(target, batch, threat, Draws(derive(number, "adaptive")))
        mask.asked = KNOWN - 1
        right = subject.reply(x_adv, sample.y).right
        found[name] = float(right.mean())
        standing &= right
    return found | {"all": float(standing.mean())}


def claimed(model: nn.Module, sample: Sample, threat: ThreatModel, spec: Spec = CLAIM) -> float:
    """What a plain attack on the model as it is leaves: whoever looks no further claims this."""
    x_adv = _plain(model, sample, threat, spec)
    subject = Subject.of_module(model, shape=sample.x.shape[1:], classes=10)
    return float(subject.reply(x_adv, sample.y).right.mean())


def claimed_by_detector(net: nn.Module, sample: Sample, threat: ThreatModel) -> float:
    """The same on the net behind a detector, where an input that is suspected counts as a success of the defence."""
    x_adv = _plain(net, sample, threat, CLAIM)
    return float(((net(x_adv).argmax(1) == sample.y) | suspected(net, x_adv)).float().mean())


def _plain(model: nn.Module, sample: Sample, threat: ThreatModel, spec: Spec) -> Tensor:
    target = TorchTarget(Subject.of_module(model, shape=sample.x.shape[1:], classes=10).model)
    return build(spec, "zoo")(target, sample.batch(np.arange(len(sample))), threat, Draws(derive("claim")))
