"""The gradient of the image, tap by tap, is that of the library; in float64, see test_engine_twin."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robustdistill.engine import taps
from robustdistill.rng import Draws


def tensor(*shape: int, key: str) -> torch.Tensor:
    return Draws(0).uniform(torch.empty(*shape, dtype=torch.float64), torch.arange(shape[0]), key) - 0.5


def conv(channels: int = 1, outputs: int = 5, **options: object) -> nn.Conv2d:
    layer = nn.Conv2d(channels, outputs, **{"kernel_size": 3, "padding": 1, **options}).double().requires_grad_(False)  # type: ignore[arg-type]
    layer.weight.copy_(tensor(*layer.weight.shape, key="weight"))
    return layer


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("edges", [(8, 8), (7, 9), (3, 4), (1, 1)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_gradient_is_the_librarys(
    stride: int, edges: tuple[int, int], channels: int, layout: torch.memory_format
) -> None:
    layer = conv(channels, stride=stride)
    x = tensor(4, channels, *edges, key="x").requires_grad_()
    y = layer(x)
    grad = tensor(*y.shape, key="grad").contiguous(memory_format=layout)
    (expected,) = torch.autograd.grad(y, x, grad)
    found = taps.Tapped(layer)(x)
    assert torch.equal(found, y)
    torch.testing.assert_close(torch.autograd.grad(found, x, grad)[0], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "options",
    [{"kernel_size": 5}, {"padding": 0}, {"stride": 3}, {"dilation": 2}, {"padding_mode": "reflect"},
     {"channels": 5}, {"channels": 2, "outputs": 4, "groups": 2}],
)  # fmt: skip
def test_other_convolutions_are_left_alone(options: dict[str, object]) -> None:
    assert taps.serves(conv())
    assert not taps.serves(conv(**options))  # type: ignore[arg-type]
    assert not taps.serves(nn.Linear(1, 1))
