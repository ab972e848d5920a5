"""Our attacks beside the authors' own code (pyautoattack), on a small adversarially trained network."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from robustdistill import attacks
from robustdistill.attacks import Batch, TorchTarget
from robustdistill.attacks.ball import ball
from robustdistill.judge import autoattack
from robustdistill.rng import Draws, seeded
from robustdistill.threat import ThreatModel

STEPS, QUERIES, N = 30, 1000, 150


class Trained(NamedTuple):
    net: nn.Module
    batch: Batch  # all classified rightly


@pytest.fixture(scope="module")
def trained() -> Trained:
    """Digits, a network of two convolutions, ten epochs of single-step adversarial training: about two seconds."""
    found = load_digits()
    x, y = torch.from_numpy(found.images).float().unsqueeze(1) / 16, torch.from_numpy(found.target)
    with seeded("agreement"):
        net = nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 24, 3, 2, 1), nn.ReLU(), nn.Flatten(),
            nn.Linear(24 * 16, 10),
        )  # fmt: skip
    optimizer, train, threat = (
        torch.optim.Adam(net.parameters(), 3e-3),
        np.arange(400, len(x)),
        ThreatModel("linf", 0.15),
    )
    attack, draws = attacks.build({"name": "fgsm", "step": 1.25, "start": "uniform"}), Draws(0)
    for epoch in range(10):
        order = train[draws.at(epoch).permutation(len(train), "order")]
        for chosen in torch.from_numpy(order).split(64):
            batch = Batch(x[chosen], y[chosen], chosen)
            x_adv = attack(TorchTarget(net), batch, threat, draws.at(epoch))
            optimizer.zero_grad()
            F.cross_entropy(net(x_adv), batch.y).backward()
            optimizer.step()
    right = (net(x[:400]).argmax(1) == y[:400]).nonzero().squeeze(1)[:N]
    assert len(right) == N
    return Trained(net.eval(), Batch(x[right], y[right], right))


# Part of the package, our attack, and by how many of the 150 images ours may be weaker, and stronger. Our Square is:
# its windows reach the last row and column of the image, theirs do not, which matters on 8 × 8 pixels.
CASES: list[tuple[str, dict[str, Any], int, int]] = [
    ("apgd-ce", {"name": "apgd", "steps": STEPS}, 3, 3),
    ("apgd-dlr", {"name": "apgd", "steps": STEPS, "goal": "dlr"}, 3, 3),
    ("apgd-t", {"name": "apgd", "steps": STEPS, "goal": "targeted-dlr"}, 1, 1),
    ("fab-t", {"name": "fab", "steps": STEPS}, 2, 5),
    ("square", {"name": "square", "queries": QUERIES}, 2, 20),
]


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(("part", "spec", "weaker", "stronger"), CASES, ids=[part for part, *_ in CASES])
def test_as_many_images_are_left_as_by_the_authors_code(
    part: str,
    spec: dict[str, Any],
    weaker: int,
    stronger: int,
    norm: Any,
    trained: Trained,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(autoattack, "ITERATIONS", STEPS)
    monkeypatch.setattr(autoattack, "QUERIES", QUERIES)
    net, batch = trained
    threat = ThreatModel(norm, {"linf": 0.15, "l2": 0.6}[norm])

    def left(x_adv: Tensor) -> Tensor:
        assert ball(threat).contains(x_adv, batch.x).all()
        return net(x_adv).argmax(1) == batch.y

    theirs = left(autoattack.AutoAttack(net, threat, 10, 3).run(part, batch.x, batch.y, 0)[0])
    ours = left(attacks.build(spec)(TorchTarget(net), batch, threat, Draws(3)))
    assert 0.15 * N < theirs.sum() < 0.85 * N  # neither is trivial
    assert int(theirs.sum()) - stronger <= int(ours.sum()) <= int(theirs.sum()) + weaker
    assert int((ours & ~theirs).sum()) <= 2 * weaker
