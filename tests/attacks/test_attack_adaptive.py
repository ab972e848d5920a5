"""Models that hide their gradient: plain PGD is fooled, the adaptive target is not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from attack_toys import Linear
from torch import Tensor, nn

from robustdistill import attacks
from robustdistill.attacks import Batch, Target, TorchTarget
from robustdistill.attacks.adaptive import ExpectedTarget, StraightThroughTarget
from robustdistill.attacks.goals import cross_entropy, margin
from robustdistill.rng import Draws, seeded
from robustdistill.threat import ThreatModel

THREAT = ThreatModel("linf", 0.1)
DRAWS = Draws(9)
SPECS = [{"name": "pgd", "steps": 30, "step": 0.1, "keep": "best", "goal": "margin"}, {"name": "apgd", "steps": 30}]


class Quantised(nn.Module):
    """A model behind an input of few levels: its gradient is 0 everywhere."""

    def __init__(self, net: nn.Module, levels: int = 20) -> None:
        super().__init__()
        self.net, self.levels = net, levels

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(torch.round(x * self.levels) / self.levels)
        return logits


class Noisy(nn.Module):
    """A model behind noise that multiplies each feature by 1 + 3 N(0, 1): a single gradient points anywhere."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x * (1 + 3 * torch.randn_like(x)))
        return logits


@pytest.fixture
def net() -> nn.Module:
    """30 features, 2 classes, of weights ±1: at eps 0.1 an attacker who knows the signs moves the margin by 6."""
    with seeded("adaptive"):
        w = torch.sign(torch.randn(30))
    return Linear(torch.stack([w, -w], dim=1))


@pytest.fixture
def batch(net: nn.Module) -> Batch:
    """40 examples with margins of at most 4: all can be broken."""
    index = torch.arange(400)
    x = 0.2 + 0.6 * Draws(3).uniform(torch.empty(400, 30), index, "x")
    z = net(x).detach()
    y = z.argmax(1)
    gap = (z[:, 0] - z[:, 1]).abs()
    keep = ((gap > 2.5) & (gap < 4)).nonzero().squeeze(1)[:40]
    assert len(keep) == 40
    return Batch(x[keep], y[keep], index[keep])


def standing(target: Target, spec: dict[str, Any], batch: Batch, judge: Target) -> float:
    with seeded("noise of the model"):
        x_adv = attacks.build(spec)(target, batch, THREAT, DRAWS)
        return float((judge.predict(x_adv) == batch.y).float().mean())


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec["name"])
def test_a_quantised_input_fools_pgd_and_not_bpda(spec: dict[str, Any], net: nn.Module, batch: Batch) -> None:
    model = Quantised(net)
    judge = TorchTarget(model)
    assert (judge.gradient(batch, cross_entropy) == 0).all()
    assert standing(judge, spec, batch, judge) > 0.8
    assert standing(StraightThroughTarget(model, net), spec, batch, judge) < 0.1


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec["name"])
def test_noise_fools_pgd_and_not_eot(spec: dict[str, Any], net: nn.Module, batch: Batch) -> None:
    """Both are judged by the expected model, over 2000 passes."""
    plain, judge = TorchTarget(Noisy(net)), ExpectedTarget(TorchTarget(Noisy(net)), 2000)
    few = spec | {"steps": 12}
    assert standing(plain, few, batch, judge) > 0.5
    assert standing(ExpectedTarget(plain, 200), few, batch, judge) < 0.2


def test_without_noise_the_expectation_is_the_model_itself(small_net: nn.Module, images: Batch) -> None:
    plain = TorchTarget(small_net)
    expected = ExpectedTarget(plain, 3)
    assert torch.allclose(expected.logits(images.x), plain.logits(images.x), atol=1e-6)
    assert torch.equal(expected.predict(images.x), plain.predict(images.x))
    for goal in (cross_entropy, margin):
        assert torch.allclose(expected.gradient(images, goal), plain.gradient(images, goal), atol=1e-6)
    with pytest.raises(ValueError, match="0 samples"):
        ExpectedTarget(plain, 0)


def test_the_gradient_of_a_margin_is_the_mean_of_those_of_fresh_passes(net: nn.Module, batch: Batch) -> None:
    """Each pass of the model scales its input by one number for the whole batch; the gradient scales with it."""

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factors = iter([1.0, 2.0, 3.0, 10.0, 20.0, 60.0])

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = net(x * next(self.factors))
            return logits

    seen: list[Tensor] = []

    def goal(logits: Tensor, at: Batch) -> Tensor:
        seen.append(logits.detach())
        return margin(logits, at)

    grad = ExpectedTarget(TorchTarget(Whole()), 3).gradient(batch, goal)
    assert torch.allclose(grad, 30 * TorchTarget(net).gradient(batch, margin), rtol=1e-5)
    assert len(seen) == 1 and torch.allclose(seen[0], 2 * net(batch.x).detach(), atol=1e-5)  # asked once, of the mean


def test_straight_through_weighs_the_true_answer_with_the_other_models_derivative(net: nn.Module, batch: Batch) -> None:
    """∂CE/∂z is taken at f(x), ∂z/∂x of b: here softmax(f) − onehot, times W of b."""
    model = Quantised(net, levels=3)
    p = model(batch.x).detach().softmax(1) - nn.functional.one_hot(batch.y, 2)
    target = StraightThroughTarget(model.train(), net)
    assert torch.allclose(target.gradient(batch, cross_entropy), p @ net.weight.detach().T, atol=1e-6)
    assert torch.equal(target.logits(batch.x), model(batch.x).detach())
    assert model.training and all(p.requires_grad and p.grad is None for p in net.parameters())
