"""What architectures for images share: the check of the input shape, and the way from maps to a vector."""

from __future__ import annotations

import torch
from torch import Tensor

from robustdistill.errors import BadInput


def require_image(name: str, shape: tuple[int, ...], *, least: int) -> tuple[int, int, int]:
    """(C, H, W), or BadInput where the inputs are no images or smaller than `least` pixels on an edge."""
    if len(shape) != 3:
        raise BadInput(
            f"{name} takes images [channels, height, width], not inputs of shape {list(shape)}",
            where="model",
            fix="correct the shape, or choose another model",
        )
    channels, height, width = shape
    if min(height, width) < least:
        raise BadInput(
            f"{name} takes images of {least} x {least} pixels or more, not {height} x {width}",
            where="model",
            fix="set data.resize, or choose another model",
        )
    return channels, height, width


def flat(maps: Tensor) -> Tensor:
    """[B, C, H, W] as [B, C · H · W]. The gradient returns in the layout of the maps: where a backward pass meets two
    layouts, it goes through them element by element, some forty times slower."""
    if maps.requires_grad and maps.is_contiguous(memory_format=torch.channels_last):
        maps.register_hook(_channels_last)  # type: ignore[no-untyped-call]
    return maps.flatten(1)


def _channels_last(grad: Tensor) -> Tensor:
    return grad.contiguous(memory_format=torch.channels_last)
