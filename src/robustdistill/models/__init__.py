"""Architectures: one a file, each with its own typed options. MODELS lists them all."""

from __future__ import annotations

import torch
from torch import nn

from robustdistill import rng
from robustdistill.models.classifier import Classifier
from robustdistill.models.ensemble import Ensemble
from robustdistill.models.gru import GRU
from robustdistill.models.mobilenet import MobileNetV2
from robustdistill.models.preact_resnet import PreActResNet
from robustdistill.models.resnet import ResNet18, ResNet50
from robustdistill.models.small_cnn import SmallCNN
from robustdistill.models.spec import ModelSpec
from robustdistill.registry import resolve, table

MODELS: dict[str, type[nn.Module]] = table(
    "model", SmallCNN, PreActResNet, ResNet18, ResNet50, MobileNetV2, GRU, Ensemble
)


def build(spec: ModelSpec, seed: int, purpose: str) -> Classifier:
    """The model with first weights that are a function of (seed, purpose). Raises BadInput for a bad spec."""
    kind, config = resolve("model", MODELS, spec.model, where="model")
    with rng.seeded(seed, "weights", purpose):
        net = kind(config, spec.shape, spec.classes)
    # Four-dimensional weights in the layout that Classifier gives its input; values are not touched.
    return Classifier(spec, net).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def parameters(model: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(weight.numel() for weight in model.parameters())


__all__ = ["MODELS", "Classifier", "ModelSpec", "build", "parameters"]
