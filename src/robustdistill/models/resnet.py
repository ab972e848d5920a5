"""ResNet-18 and ResNet-50 as torchvision defines them (He et al. 2015), with a stem for small images.

torchvision is imported when a model is built, since most runs need none of it.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from robustdistill.config import Strict
from robustdistill.models.images import require_image


class _ResNet(nn.Module):
    """The 7 × 7 stem and its pooling, made for 224 pixels, give way to one 3 × 3 convolution."""

    name: str

    class Config(Strict):
        stride: int = Field(default=1, ge=1, le=4, description="of the stem; 1 suits 32 x 32, 2 is four times cheaper")

    def __init__(self, config: Config, shape: tuple[int, ...], classes: int) -> None:
        from torchvision.models import resnet

        super().__init__()
        channels, *_ = require_image(self.name, shape, least=8)
        self.body: nn.Module = getattr(resnet, self.name)(weights=None, num_classes=classes)
        self.body.conv1 = nn.Conv2d(channels, 64, 3, config.stride, 1, bias=False)
        nn.init.kaiming_normal_(self.body.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.body.maxpool = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.body(x)
        return logits


class ResNet18(_ResNet):
    name = "resnet18"


class ResNet50(_ResNet):
    name = "resnet50"
