"""The seam to models: what an attack may not touch, and that all is as it was afterwards."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from robustdistill.attacks import Batch, TorchTarget, attack_mode, select
from robustdistill.attacks.goals import cross_entropy


def test_attack_mode_restores_each_module_and_parameter_exactly(small_net: nn.Module) -> None:
    small_net.train()
    small_net[1].eval()  # a frozen batch norm inside a training model
    small_net[0].weight.requires_grad_(False)
    modes = [module.training for module in small_net.modules()]
    flags = [parameter.requires_grad for parameter in small_net.parameters()]
    with pytest.raises(KeyError), attack_mode(small_net):
        assert not any(module.training for module in small_net.modules())
        assert not any(parameter.requires_grad for parameter in small_net.parameters())
        raise KeyError  # also when the attack fails
    assert [module.training for module in small_net.modules()] == modes
    assert [parameter.requires_grad for parameter in small_net.parameters()] == flags
    assert len(set(modes)) == 2 and len(set(flags)) == 2


def test_a_target_answers_in_eval_mode_and_leaves_the_training_model_bit_equal(
    small_net: nn.Module, images: Batch
) -> None:
    expected = small_net(images.x).detach()
    before = copy.deepcopy(small_net.state_dict())
    target = TorchTarget(small_net.train())
    logits = target.logits(images.x)
    grad = target.gradient(images, cross_entropy)
    assert torch.equal(logits, expected) and not logits.requires_grad
    assert torch.equal(target.predict(images.x), expected.argmax(1))
    assert all(torch.equal(value, before[key]) for key, value in small_net.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in small_net.parameters())
    assert grad.shape == images.x.shape and not images.x.requires_grad and not grad.requires_grad


def test_the_gradient_is_each_examples_own(small_net: nn.Module, images: Batch) -> None:
    x = images.x.clone().requires_grad_(True)
    loss = nn.functional.cross_entropy(small_net(x), images.y, reduction="sum")
    loss.backward()
    target = TorchTarget(small_net)
    assert torch.allclose(target.gradient(images, cross_entropy), x.grad)
    half = select(images, torch.arange(4, 8))
    assert torch.allclose(target.gradient(half, cross_entropy), x.grad[4:8], atol=1e-6)
    with torch.no_grad():  # a caller without gradients still gets one
        assert target.gradient(images, cross_entropy).abs().sum() > 0


@pytest.mark.parametrize("keep", [torch.tensor([True, False, True]), torch.tensor([0, 2])])
def test_select_slices_the_context_too(keep: Tensor) -> None:
    batch = Batch(torch.eye(3), torch.arange(3), torch.arange(3) + 5).with_context(start=torch.ones(3, 3).cumsum(0))
    chosen = select(batch, keep)
    assert chosen.y.tolist() == [0, 2] and chosen.index.tolist() == [5, 7]
    assert chosen.get("start")[:, 0].tolist() == [1, 3]
    assert chosen.get("reference") is None and select(batch._replace(context=None), keep).context is None
