"""Boxes of values, and how layers move them (Gowal et al. 2018, "On the effectiveness of interval bound propagation").

Every rule contains the image of the box. A layer of a type that is not listed here has no rule: NoBound.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class NoBound(Exception):
    """The network has a part whose bounds are not known; the text says which."""


class Interval(NamedTuple):
    """All values v with low ≤ v ≤ high, entry by entry; both [B, *shape]."""

    low: Tensor
    high: Tensor

    def rising(self, function: Callable[[Tensor], Tensor]) -> Interval:
        """The image under a function of which no output falls where an input rises."""
        return Interval(function(self.low), function(self.high))

    def affine(self, linear: Callable[[Tensor], Tensor], size: Callable[[Tensor], Tensor]) -> Interval:
        """Gowal et al. 2018, eq. 6: μ' = W μ + b, r' = |W| r. linear: W · + b; size: |W| ·."""
        middle, radius = linear((self.low + self.high) / 2), size((self.high - self.low) / 2)
        return Interval(middle - radius, middle + radius)

    def plus(self, other: Interval) -> Interval:
        return Interval(self.low + other.low, self.high + other.high)


def _convolution(layer: nn.Conv2d, x: Interval) -> Interval:
    if layer.padding_mode != "zeros":
        raise NoBound(f"no bound for a convolution with padding {layer.padding_mode!r}")

    def conv(values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        weight = weight.to(values)
        bias = None if bias is None else bias.to(values)
        return F.conv2d(values, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)

    return x.affine(lambda v: conv(v, layer.weight, layer.bias), lambda v: conv(v, layer.weight.abs(), None))


def linear(weight: Tensor, bias: Tensor | None, x: Interval) -> Interval:
    """weight [out, in], bias [out]: of x [B, in]."""
    weight, bias = weight.to(x.low), None if bias is None else bias.to(x.low)
    return x.affine(lambda v: F.linear(v, weight, bias), lambda v: F.linear(v, weight.abs()))


def _norm(layer: nn.BatchNorm1d | nn.BatchNorm2d, x: Interval) -> Interval:
    """γ (v − mean) / √(var + ε) + β with the stored mean and variance."""
    if layer.training or layer.running_mean is None or layer.running_var is None:
        raise NoBound("no bound for a batch norm that depends on the batch")
    view = (1, -1, *[1] * (x.low.dim() - 2))
    mean, var = layer.running_mean.to(x.low), layer.running_var.to(x.low)
    scale = (var + layer.eps).rsqrt()
    shift = -mean * scale
    if layer.affine:
        scale, shift = scale * layer.weight.to(x.low), shift * layer.weight.to(x.low) + layer.bias.to(x.low)
    scale, shift = scale.view(view), shift.view(view)
    return x.affine(lambda v: v * scale + shift, lambda v: v * scale.abs())


def _leaky(layer: nn.LeakyReLU, x: Interval) -> Interval:
    if layer.negative_slope < 0:
        raise NoBound("no bound for a LeakyReLU with a negative slope")
    return x.rising(lambda v: F.leaky_relu(v, layer.negative_slope))


def _idle(layer: nn.Module, x: Interval) -> Interval:
    if layer.training and not isinstance(layer, nn.Identity):
        raise NoBound("no bound for dropout that is on")
    return x


def _average(layer: nn.AvgPool2d, x: Interval) -> Interval:
    if layer.divisor_override is not None and layer.divisor_override < 0:
        raise NoBound("no bound for pooling with a negative divisor")
    return x.rising(layer)


RISING = (nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Sigmoid, nn.Tanh, nn.Flatten)


def layer(module: nn.Module, x: Interval) -> Interval:
    """The rule of this very type: a subclass may compute anything. Raises NoBound where there is none."""
    kind = type(module)
    if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
        raise NoBound(f"no bound for a {kind.__name__} whose forward pass was changed")
    if kind is nn.Conv2d:
        return _convolution(module, x)  # type: ignore[arg-type]
    if kind is nn.Linear:
        return linear(module.weight, module.bias, x)  # type: ignore[arg-type]
    if kind in (nn.BatchNorm1d, nn.BatchNorm2d):
        return _norm(module, x)  # type: ignore[arg-type]
    if kind is nn.ReLU:
        return x.rising(torch.relu)
    if kind is nn.ReLU6:
        return x.rising(lambda v: v.clamp(0, 6))
    if kind is nn.LeakyReLU:
        return _leaky(module, x)  # type: ignore[arg-type]
    if kind is nn.AvgPool2d:
        return _average(module, x)  # type: ignore[arg-type]
    if kind in (nn.Identity, nn.Dropout, nn.Dropout2d):
        return _idle(module, x)
    if kind in RISING and not getattr(module, "return_indices", False):
        return x.rising(module)
    raise NoBound(f"no bound for a {kind.__name__}")
