"""The attack twin answers as the model does, before and after steps, and touches nothing of it.

In float64: in float32 the rounding of either way to compute it can put an activation on the other side of a ReLU's
kink, where the gradient jumps, so that two right answers differ by far more than rounding.
"""

from __future__ import annotations

import pytest
import torch

from robustdistill.attacks.types import Batch, TorchTarget
from robustdistill.engine.twin import Twin
from robustdistill.models import MODELS, Classifier, ModelSpec, build
from robustdistill.rng import Draws, seeded


def made(name: str) -> Classifier:
    return build(ModelSpec({"name": name}, (1, 8, 8), 10, 0.0, 1.0, (0.3,), (0.4,)), 0, "twin").double().train()


def batch(seed: int = 0) -> Batch:
    index = torch.arange(4)
    x = Draws(seed).uniform(torch.empty(4, 1, 8, 8, dtype=torch.float64), index, "x")
    return Batch(x, index, index)


def goal(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits, batch.y, reduction="none")


def moved(model: Classifier) -> None:
    """A step of training: weights and running statistics change in place."""
    with seeded("dropout"):
        loss = goal(model(batch(1).x), batch(1)).mean()
    loss.backward()
    with torch.no_grad():
        for weight in model.parameters():
            weight -= 0.05 * weight.grad


@pytest.mark.parametrize("name", sorted(set(MODELS) - {"resnet50"}))
def test_the_twin_follows_the_model(name: str) -> None:
    model = made(name)
    twin = Twin(model)
    for _ in range(2):
        moved(model)
        twin.refresh()
        target, exact = TorchTarget(model), batch()
        torch.testing.assert_close(twin.logits(exact.x), target.logits(exact.x), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(twin.gradient(exact, goal), target.gradient(exact, goal), rtol=1e-9, atol=1e-9)
    assert torch.equal(twin.predict(exact.x), twin.logits(exact.x).argmax(1))


def test_batch_norm_is_gone_where_it_can_be() -> None:
    twin = Twin(made("small_cnn"))
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in twin.model.modules())


def test_an_attack_on_the_twin_leaves_the_model_bit_equal() -> None:
    model = made("small_cnn")
    moved(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    grads = [weight.grad.clone() for weight in model.parameters()]
    twin = Twin(model)
    twin.gradient(batch(), goal)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(torch.equal(kept, weight.grad) for kept, weight in zip(grads, model.parameters(), strict=True))
    assert model.training
    assert all(weight.requires_grad for weight in model.parameters())
