"""MobileNetV2 as torchvision defines it (Sandler et al. 2018), with a stem for small images and any channels.

torchvision is imported when a model is built, since most runs need none of it.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from robustdistill.config import Strict
from robustdistill.models.images import require_image


class MobileNetV2(nn.Module):
    name = "mobilenet_v2"

    class Config(Strict):
        width: float = Field(default=1.0, gt=0, le=2, description="multiple of every layer's channels")
        stride: int = Field(default=1, ge=1, le=4, description="of the stem; 1 suits 32 x 32, 2 is four times cheaper")
        dropout: float = Field(default=0.2, ge=0, lt=1, description="before the last layer")

    def __init__(self, config: Config, shape: tuple[int, ...], classes: int) -> None:
        from torchvision.models import mobilenetv2

        super().__init__()
        channels, *_ = require_image(self.name, shape, least=8)
        body = mobilenetv2.MobileNetV2(num_classes=classes, width_mult=config.width, dropout=config.dropout)
        first = body.features[0][0]
        stem = nn.Conv2d(channels, first.out_channels, 3, config.stride, 1, bias=False)
        nn.init.kaiming_normal_(stem.weight, mode="fan_out")
        body.features[0][0] = stem
        self.body: nn.Module = body

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.body(x)
        return logits
