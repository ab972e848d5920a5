"""A pre-activation residual network (He et al. 2016, "Identity mappings in deep residual networks"), narrow or wide."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from robustdistill.config import Strict
from robustdistill.models.images import require_image


class PreActResNet(nn.Module):
    """3 × 3 stem, four stages of width · (1, 2, 4, 8), batch norm, mean over pixels, linear.

    width 64 with 2 blocks a stage is the PreActResNet-18 of the adversarial-training literature.
    """

    name = "preact_resnet"

    class Config(Strict):
        width: int = Field(default=16, ge=4, le=256, description="channels of the first stage")
        blocks: int = Field(default=2, ge=1, le=8, description="residual blocks in each of the four stages")
        stride: int = Field(default=1, ge=1, le=4, description="of the stem; 2 quarters the cost on 28 x 28 and larger")

    def __init__(self, config: Config, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        channels, *_ = require_image(self.name, shape, least=8)
        self.stem = nn.Conv2d(channels, config.width, 3, config.stride, 1, bias=False)
        blocks: list[nn.Module] = []
        before = config.width
        for stage in range(4):
            width = config.width * 2**stage
            for position in range(config.blocks):
                blocks.append(Block(before, width, 2 if stage > 0 and position == 0 else 1))
                before = width
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(before)
        self.head = nn.Linear(before, classes)

    def forward(self, x: Tensor) -> Tensor:
        features = F.relu(self.norm(self.blocks(self.stem(x))))
        logits: Tensor = self.head(features.mean((2, 3)))
        return logits


class Block(nn.Module):
    """x + conv(relu(norm(conv(relu(norm(x)))))); where the shape changes, x is projected after its activation."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        same = stride == 1 and before == width
        self.project = None if same else nn.Conv2d(before, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.norm1(x))
        carried = x if self.project is None else self.project(active)
        return carried + self.conv2(F.relu(self.norm2(self.conv1(active))))  # type: ignore[no-any-return]
