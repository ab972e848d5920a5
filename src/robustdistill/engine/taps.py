"""The gradient of a 3 × 3 convolution with respect to an image of few channels, tap by tap.

An attack asks for nothing else, and the first layer's kernel for it is the slowest part of a small network: libraries
are made for many channels on either side. With y = conv(x, w), stride s, one pixel of zeros around x,

    ∂L/∂x[c, i, j] = Σ_kl Σ_o w[o, c, k, l] · g[o, (i + 1 − k) / s, (j + 1 − l) / s]     (where the division is whole)

Σ_o is one matrix product for all nine taps (k, l); each is then added where it belongs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

MOST_CHANNELS = 4  # of the image; with more the library's kernel is as fast


def serves(layer: nn.Module) -> bool:
    """Whether it is a convolution that `Tapped` can stand for."""
    return (
        isinstance(layer, nn.Conv2d)
        and layer.in_channels <= MOST_CHANNELS
        and layer.kernel_size == (3, 3)
        and layer.padding == (1, 1)
        and layer.stride in ((1, 1), (2, 2))
        and layer.dilation == (1, 1)
        and layer.groups == 1
        and layer.padding_mode == "zeros"
    )


class Tapped(nn.Module):
    """A convolution with frozen weights: the same answers, and on a processor a faster gradient of its input."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        conv = self.conv
        if x.device.type != "cpu" or not (x.requires_grad and torch.is_grad_enabled()):
            return conv(x)  # type: ignore[no-any-return]
        y: Tensor = _Convolution.apply(x, conv.weight, conv.bias, conv.stride[0])  # type: ignore[no-untyped-call]
        return y


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.stride, ctx.edges = stride, x.shape[2:]
        return functional.conv2d(x, weight, bias, stride, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (weight,) = ctx.saved_tensors
        with torch.autocast("cpu", enabled=False):
            return input_gradient(grad.to(weight.dtype), weight, ctx.stride, ctx.edges), None, None, None


def input_gradient(grad: Tensor, weight: Tensor, stride: int, edges: tuple[int, int]) -> Tensor:
    """grad: ∂L/∂y [B, O, h, w]. weight: [O, C, 3, 3]. edges: (H, W) of the image. Returns ∂L/∂x [B, C, H, W]."""
    batch, outputs, high, wide = grad.shape
    channels = weight.shape[1]
    pixels = grad.permute(0, 2, 3, 1).reshape(-1, outputs)
    taps = weight.permute(2, 3, 1, 0).reshape(-1, outputs) @ pixels.t()
    taps = taps.view(3, 3, channels, batch, high, wide)
    reach, across = stride * (high - 1) + 1, stride * (wide - 1) + 1
    padded = grad.new_zeros(channels, batch, reach + 2, across + 2)
    for k in range(3):
        for l in range(3):  # noqa: E741  the index of the equation
            padded[:, :, k : k + reach : stride, l : l + across : stride] += taps[k, l]
    return padded[:, :, 1 : 1 + edges[0], 1 : 1 + edges[1]].transpose(0, 1).contiguous()
