"""The attack twin: the model under attack, as fast as it can be made without changing what it answers.

An inner attack asks the student for gradients many times between two steps. The twin shares the student's weights in
memory, is in evaluation mode for good and takes no weight gradients, so nothing is switched to and fro. Where a
convolution is followed by batch norm in a Sequential, both become one convolution (w · γ / σ, β − μ · γ / σ), found
anew after each step; that of the image gets a faster gradient (engine.taps). A module that the project did not build
may do anything in its forward pass, so it is attacked as it is: it has to be in evaluation mode already.
"""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from robustdistill.attacks.types import Access, Batch, Goal
from robustdistill.engine import taps
from robustdistill.models.classifier import Classifier


class Twin:
    """A Target (attacks.types). Call `refresh` whenever the model's weights or statistics have changed."""

    access = Access.GRADIENT

    def __init__(self, model: nn.Module) -> None:
        self.model, self._folds = model, list[_Fold]()
        if not isinstance(model, Classifier):
            return
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        _share(self.model, model)
        self._folds = [
            _Fold(chain, theirs, position)
            for chain, theirs in zip(self.model.modules(), model.modules(), strict=True)
            if isinstance(chain, nn.Sequential)
            for position in _foldable(chain)
        ]
        for fold in self._folds:
            fold.install()
        _tap(self.model)
        self.refresh()

    def refresh(self) -> None:
        for fold in self._folds:
            fold.refresh()

    def predict(self, x: Tensor) -> Tensor:
        return self.logits(x).argmax(dim=1)

    def logits(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            logits: Tensor = self.model(x)
        return logits

    def gradient(self, batch: Batch, goal: Goal) -> Tensor:
        with torch.enable_grad():
            x = batch.x.detach().requires_grad_(True)
            return torch.autograd.grad(goal(self.model(x), batch._replace(x=x)).sum(), x)[0]


class _Fold:
    """One convolution of the twin that stands for a convolution and a batch norm of the model."""

    def __init__(self, chain: nn.Sequential, theirs: nn.Module, position: int) -> None:
        self._chain, self._position = chain, position
        pair = list(cast(nn.Sequential, theirs))[position : position + 2]
        self._conv, self._norm = cast(nn.Conv2d, pair[0]), cast(nn.BatchNorm2d, pair[1])
        self._folded = copy.deepcopy(cast(nn.Conv2d, chain[position]))
        self._folded.weight = nn.Parameter(self._conv.weight.detach().clone(), requires_grad=False)
        self._folded.bias = nn.Parameter(torch.zeros_like(self._norm.running_mean), requires_grad=False)  # type: ignore[arg-type]

    def install(self) -> None:
        self._chain[self._position] = self._folded
        self._chain[self._position + 1] = nn.Identity()

    @torch.no_grad()
    def refresh(self) -> None:
        norm, bias = self._norm, self._folded.bias
        assert norm.running_var is not None and norm.running_mean is not None and bias is not None
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        torch.mul(self._conv.weight, scale.view(-1, 1, 1, 1), out=self._folded.weight)
        before = -norm.running_mean if self._conv.bias is None else self._conv.bias - norm.running_mean
        torch.addcmul(norm.bias, before, scale, out=bias)


def _foldable(chain: nn.Sequential) -> list[int]:
    """Positions of convolutions that a batch norm with fixed statistics follows."""
    layers = list(chain)
    return [
        position
        for position, (first, second) in enumerate(pairwise(layers))
        if isinstance(first, nn.Conv2d)
        and isinstance(second, nn.BatchNorm2d)
        and second.affine
        and second.track_running_stats
    ]


def _tap(model: nn.Module) -> None:
    for parent in [*model.modules()]:
        for name, layer in [*parent.named_children()]:
            if taps.serves(layer):
                setattr(parent, name, taps.Tapped(cast(nn.Conv2d, layer)))


def _share(twin: nn.Module, model: nn.Module) -> None:
    """The twin's parameters and buffers become the model's own memory: steps and statistics arrive by themselves."""
    for ours, theirs in zip(twin.modules(), model.modules(), strict=True):
        for name, parameter in theirs._parameters.items():
            if parameter is not None:
                ours._parameters[name] = nn.Parameter(parameter.detach(), requires_grad=False)
        for name, buffer in theirs._buffers.items():
            ours._buffers[name] = buffer
