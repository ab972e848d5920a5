"""What every attack of the table must do, and must not: one row for each."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from robustdistill import attacks
from robustdistill.attacks import ATTACKS, Batch, TorchTarget
from robustdistill.attacks.ball import ball
from robustdistill.rng import Draws, seeded
from robustdistill.threat import NORMS, ThreatModel

DRAWS = Draws(11, epoch=3)


def run(spec: dict[str, Any], model: nn.Module, batch: Batch, threat: ThreatModel) -> Tensor:
    return attacks.build(spec)(TorchTarget(model), batch, threat, DRAWS)


# One row for each attack: quick options, and whether it needs images.
ROWS: dict[str, tuple[dict[str, Any], bool]] = {
    "fgsm": ({"step": 1.25, "start": "uniform"}, False),
    "pgd": ({"steps": 3, "restarts": 2, "keep": "best"}, False),
    "apgd": ({"steps": 8, "goal": "targeted-margin", "targets": 2, "restarts": 2}, False),
    "fab": ({"steps": 6, "targets": 2, "restarts": 2}, False),
    "square": ({"queries": 70, "restarts": 2}, True),
    "own": ({"steps": 6, "queries": 30}, False),
}


def test_one_row_for_each_attack() -> None:
    assert sorted(ATTACKS) == sorted(ROWS)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(sorted(ROWS)),
    norm=st.sampled_from(NORMS),
    eps=st.floats(1e-3, 2.0),
    low=st.sampled_from([0.0, -3.0]),
    shape=st.sampled_from([(3, 4), (1, 7, 6), (3, 6, 6)]),
    seed=st.integers(0, 2**31),
)
def test_its_results_lie_in_the_ball_and_the_box(
    name: str, norm: Any, eps: float, low: float, shape: tuple[int, ...], seed: int
) -> None:
    options, image = ROWS[name]
    shape = (2, 5, 5) if image and len(shape) < 3 else shape
    threat = ThreatModel(norm, eps, low, 1.0)
    with seeded("net", seed):
        net = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 8), nn.ReLU(), nn.Linear(8, 3))
    index = torch.arange(4) + seed
    x = low + (1 - low) * DRAWS.uniform(torch.empty(4, *shape), index, "x").round(decimals=1)  # some on the walls
    x_adv = run({"name": name, **options}, net, Batch(x, net(x).argmax(1), index), threat)
    assert ball(threat).contains(x_adv, x).all()
    assert x_adv.dtype == x.dtype and not x_adv.requires_grad


@pytest.mark.parametrize("name", sorted(ROWS))
def test_the_training_model_stays_bit_equal(name: str, small_net: nn.Module, images: Batch) -> None:
    before = copy.deepcopy(small_net.state_dict())
    batch = images._replace(x=images.x.clone())
    small_net.train()[1].eval()
    small_net[0].weight.requires_grad_(False)
    modes = [module.training for module in small_net.modules()]
    small_net.register_forward_hook(lambda module, *_: modes.append(module.training))
    run({"name": name, **ROWS[name][0]}, small_net, batch, ThreatModel("linf", 0.1))
    count = len(list(small_net.modules()))
    assert [module.training for module in small_net.modules()] == modes[:count] and True in modes[:count]
    assert len(modes) > count and not any(modes[count:])  # every forward pass was in evaluation mode
    assert all(torch.equal(value, before[key]) for key, value in small_net.state_dict().items())
    assert [p.requires_grad for p in small_net.parameters()].count(False) == 1
    assert all(p.grad is None for p in small_net.parameters()) and torch.equal(batch.x, images.x)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", sorted(ROWS))
def test_an_example_is_attacked_alike_in_any_batch_and_order(
    name: str, norm: Any, small_net: nn.Module, images: Batch
) -> None:
    """The float64 net leaves no room for sums in another order: who else is in the batch, and who breaks first, must
    change nothing."""
    net, x = small_net.double(), images.x.double()
    batch = images._replace(x=x, y=net(x).argmax(1))
    spec, threat = {"name": name, **ROWS[name][0]}, ThreatModel(norm, {"linf": 0.03, "l2": 0.1}[norm])
    whole = run(spec, net, batch, threat)
    broken = net(whole).argmax(1) != batch.y
    assert broken.any() and not broken.all()
    for keep in (torch.tensor([9, 2, 5]), torch.arange(15, -1, -1), torch.tensor([int(broken.long().argmin())])):
        part = run(spec, net, attacks.select(batch, keep), threat)
        assert torch.allclose(part, whole[keep], atol=1e-6)


@pytest.mark.parametrize("name", sorted(ROWS))
def test_an_empty_batch_is_no_trouble(name: str, small_net: nn.Module, images: Batch) -> None:
    none = attacks.select(images, torch.zeros(16, dtype=torch.bool))
    assert run({"name": name, **ROWS[name][0]}, small_net, none, ThreatModel("l2", 1.0)).shape == (0, 1, 6, 6)


@pytest.mark.parametrize("name", sorted(ROWS))
def test_a_model_without_numbers_does_not_stop_it(name: str, images: Batch) -> None:
    """NaN counts as wrong; x_adv itself stays inside."""

    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            z = x.flatten(1)[:, :3]
            return torch.where(x.flatten(1).mean(1, keepdim=True) > 0.5, torch.sqrt(-z - 1), z)

    threat = ThreatModel("linf", 0.1)
    x_adv = run({"name": name, **ROWS[name][0]}, Broken(), images, threat)
    if name not in ("fgsm", "pgd"):
        assert ball(threat).contains(x_adv, images.x).all()
    assert x_adv.shape == images.x.shape
