"""Interval bounds hold, are of use where a net was trained for them, and refuse what they do not know."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from judge_toys import Case, judged
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from robustdistill import attacks
from robustdistill.attacks import Batch, TorchTarget
from robustdistill.judge import bounds
from robustdistill.judge.bounds import Bound, Interval, Network, NoBound, certified
from robustdistill.models import ModelSpec, build
from robustdistill.rng import Draws, seeded
from robustdistill.threat import ThreatModel

EPS = 0.03
MODELS: list[dict[str, Any]] = [
    {"name": "small_cnn", "size": "nano"},
    {"name": "small_cnn", "size": "tiny"},
    {"name": "preact_resnet", "width": 4, "blocks": 1},
    {"name": "resnet18", "stride": 2},
]


def lived_in(spec: dict[str, Any], shape: tuple[int, ...]) -> nn.Module:
    """First weights, with statistics in the batch norms that are not the first ones."""
    channels = shape[0]
    model = build(ModelSpec(spec, shape, 10, 0.0, 1.0, (0.4,) * channels, (0.3,) * channels), 0, "test")
    with seeded("test", "statistics"), torch.no_grad():
        model.train()
        model(torch.rand(16, *shape))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.normal_()
                module.bias.normal_(std=0.2)
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize("spec", MODELS, ids=lambda spec: "-".join(map(str, spec.values())))
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 12, 12)], ids=["gray", "rgb"])
def test_logits_and_margins_of_every_point_lie_in_the_bounds(spec: dict[str, Any], shape: tuple[int, ...]) -> None:
    model = lived_in(spec, shape).double()
    network = Network(model)
    with seeded("test", "points"):
        x, y = torch.rand(4, *shape, dtype=torch.float64), torch.tensor([0, 3, 5, 9])
        for eps in (0.0, 1e-4, 0.02, 0.3):
            box = Interval((x - eps).clamp(0, 1), (x + eps).clamp(0, 1))
            found, margins = network.logits(box), network.margins(box, y)
            size = 1e-9 * found.high.abs().max().clamp(min=1)
            for corner in (False, True):
                share = torch.rand(5, *x.shape, dtype=torch.float64)
                share = share.round() if corner else share
                for z in map(model, box.low + share * (box.high - box.low)):
                    assert (z >= found.low - size).all() and (z <= found.high + size).all()
                    assert (z.gather(1, y[:, None]) - z >= margins - size).all()


def test_a_box_of_one_point_gives_the_logits() -> None:
    model = lived_in(MODELS[2], (1, 8, 8)).double()
    x = torch.linspace(0, 1, 64, dtype=torch.float64).view(1, 1, 8, 8)
    found = Network(model).logits(Interval(x, x))
    torch.testing.assert_close(found.low, model(x))
    torch.testing.assert_close(found.high, model(x))


@cache
def trained() -> tuple[nn.Module, Tensor, Tensor]:
    """A net trained on digits with the worst-case loss of Gowal et al. 2018, eq. 12, and examples it has not seen."""
    data = load_digits()
    x = torch.from_numpy(data.images / 16).float()[:, None]
    y = torch.from_numpy(data.target)
    with seeded("test", "ibp"):
        net = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(256, 64), nn.ReLU(),
            nn.Linear(64, 10),
        ).eval()  # fmt: skip
    network, seen = Network(net), slice(0, 1400)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    steps = 300
    for step in range(steps):
        at = torch.from_numpy(Draws(0, step).choice(1400, 128, "batch"))
        eps = EPS * min(1.0, 2 * step / steps)
        box = Interval((x[seen][at] - eps).clamp(0, 1), (x[seen][at] + eps).clamp(0, 1))
        loss = F.cross_entropy(-network.margins(box, y[seen][at]), y[seen][at])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.requires_grad_(False), x[1400:], y[1400:]


def test_a_net_trained_for_it_is_certified_and_no_attack_breaks_what_is_certified() -> None:
    net, x, y = trained()
    threat = ThreatModel("linf", EPS)
    clean = (net(x).argmax(1) == y).numpy()
    sure = certified(net, x, y, threat)
    batch, worst = Batch(x, y, torch.arange(len(x))), clean.copy()
    for spec in ({"name": "fgsm"}, {"name": "pgd", "steps": 20}, {"name": "pgd", "steps": 20, "goal": "margin"}):
        right = (net(attacks.build(spec, "test")(TorchTarget(net), batch, threat, Draws(0))).argmax(1) == y).numpy()
        assert not (sure & ~right).any()
        worst &= right
    assert sure.mean() > 0.6
    assert sure.mean() <= worst.mean() <= clean.mean()
    assert certified(net, x, y, ThreatModel("linf", 0.5)).sum() == 0  # every input may become the same
    smaller = certified(net, x, y, ThreatModel("linf", EPS / 3))
    assert not (sure & ~smaller).any() and smaller.sum() > sure.sum()


class _Reads(nn.Module):
    """Overwrites in place what it reads afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return self.relu(x) + x


class _Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) if x.sum() > 0 else -x.flatten(1)


class _Counts(nn.Module):
    """Answers otherwise after the first call: the record holds one of its answers."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.other, self.calls = nn.Linear(4, 4), nn.Linear(4, 4), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return (self.head if self.calls == 1 else self.other)(x.flatten(1))  # type: ignore[no-any-return]


def _hooked() -> nn.Module:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 4))
    net[1].register_forward_hook(lambda _module, _inputs, output: -output)
    return net


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: nn.Sequential(nn.Flatten(), nn.Softmax(1)), "Softmax"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.GELU()), "GELU"),
        (lambda: nn.Sequential(nn.Dropout(0.5).train(), nn.Flatten()), "dropout"),
        (lambda: nn.Sequential(nn.BatchNorm2d(1).train(), nn.Flatten()), "batch"),
        (_Reads, "overwritten"),
        (_Branches, "depend on its input"),
        (_Counts, "own logits"),
        (_hooked, "changed"),
    ],
)
def test_what_is_not_known_has_no_bound_and_a_reason(make: Callable[[], nn.Module], reason: str) -> None:
    with seeded("test", "unknown"):
        model = make()
    x, y = torch.linspace(0.1, 0.9, 8).view(2, 1, 2, 2), torch.tensor([0, 1])
    with torch.no_grad(), pytest.raises(NoBound, match=reason):
        certified(model, x, y, ThreatModel("linf", 0.1))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_scorecard_says_what_is_certified(make: Callable[..., Case], norm: str) -> None:
    case = make(4, norm=norm, autoattack="none")
    card = judged(case)
    floor = card["bounds"]["certified"]
    assert floor <= card["robust"]["accuracy"] <= min(row["accuracy"] for row in card["attacks"])
    assert [item["ok"] for item in card["health"] if item["name"] == "bound"] == [True]
    if norm == "linf":  # of a linear model the bounds are exact
        assert floor == case.analytic.mean() > 0.2


def test_a_masked_model_has_no_bound(make: Callable[..., Case]) -> None:
    card = judged(make(4, mask="steps", autoattack="none"))
    assert card["bounds"]["certified"] is None and "operation" in card["bounds"]["reason"]
    assert "bound" not in {item["name"] for item in card["health"]}


def test_an_attack_that_breaks_what_is_certified_is_an_error() -> None:
    trial: Any = SimpleNamespace(standing=np.array([True, False, False]))
    (item,) = bounds.check(trial, Bound(np.array([True, True, False])))
    assert not item.ok and item.level == "error" and item.value == 1
    assert bounds.check(trial, Bound(np.array([True, False, False])))[0].ok
    assert bounds.check(trial, Bound(None, "why")) == []
