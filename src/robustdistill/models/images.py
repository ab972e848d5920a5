"""What architectures for images share: the check of the input shape."""

from __future__ import annotations

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
