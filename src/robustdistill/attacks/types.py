"""What an attack works with: a batch of examples, a goal to maximise, and a model under attack behind one seam.

Shapes: B examples, C classes. `Target` is all that an attack sees of a model; the engine swaps in faster ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn


class Batch(NamedTuple):
    """x float32 [B, *shape] in [low, high]; y int64 [B]; index int64 [B] content ids, which key every random draw.

    context: further tensors [B, ...] by name. In use: "start" (where attacks begin), "reference" (logits that the
    goal "kl" moves away from), "teacher_logits" (T(x), where it is known).
    """

    x: Tensor
    y: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody calls on a batch
    context: dict[str, Tensor] | None = None

    def with_context(self, **tensors: Tensor) -> Batch:
        """The same examples with further context."""
        return self._replace(context={**(self.context or {}), **tensors})

    def get(self, key: str) -> Tensor | None:
        """One tensor of the context, None where there is none."""
        return None if self.context is None else self.context.get(key)


def select(batch: Batch, keep: Tensor) -> Batch:
    """The examples of `keep` (bool mask [B] or int64 positions), context included."""
    context = None if batch.context is None else {key: value[keep] for key, value in batch.context.items()}
    return Batch(batch.x[keep], batch.y[keep], batch.index[keep], context)


Goal = Callable[[Tensor, Batch], Tensor]  # (logits [B, C], batch at the attacked point) -> [B], to be maximised


class Access(IntEnum):
    """What an attacker gets to see of a model, least first."""

    LABELS = 0
    SCORES = 1
    GRADIENT = 2


class Target(Protocol):
    """A model under attack: in evaluation mode, its weights and buffers out of reach."""

    @property
    def access(self) -> Access: ...

    def predict(self, x: Tensor) -> Tensor:
        """Classes [B], int64."""

    def logits(self, x: Tensor) -> Tensor:
        """Logits [B, C], without a graph."""

    def gradient(self, batch: Batch, goal: Goal) -> Tensor:
        """d goal / d batch.x, of the shape of batch.x. Calls `goal` once, on the whole batch (PGD reads along)."""


@contextmanager
def attack_mode(module: nn.Module) -> Iterator[None]:
    """Evaluation mode and no weight gradients inside; each module's own mode and flag exactly restored after.

    Attacking in training mode would move batch-norm statistics with every step (a bug of published ARD code) and
    weakens the attack. Flags are set directly: `train()` may be overridden and forgets mixed modes.
    """
    modes = [(each, each.training) for each in module.modules()]
    flags = [(each, each.requires_grad) for each in module.parameters()]
    try:
        for each, _ in modes:
            each.training = False
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        yield
    finally:
        for each, mode in modes:
            each.training = mode
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


class TorchTarget:
    """Full access to a torch module that maps x [B, *shape] to logits [B, C]."""

    access = Access.GRADIENT

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def predict(self, x: Tensor) -> Tensor:
        return self.logits(x).argmax(dim=1)

    def logits(self, x: Tensor) -> Tensor:
        with attack_mode(self.model), torch.no_grad():
            logits: Tensor = self.model(x)
        return logits

    def gradient(self, batch: Batch, goal: Goal) -> Tensor:
        with attack_mode(self.model), torch.enable_grad():
            x = batch.x.detach().requires_grad_(True)
            # Examples do not interact in evaluation mode, so the gradient of the sum is each example's own.
            return torch.autograd.grad(goal(self.model(x), batch._replace(x=x)).sum(), x)[0]
