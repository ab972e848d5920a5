"""SGD with Nesterov momentum, and Adam with decoupled decay (Loshchilov and Hutter 2019), as torch.optim defines them.

Written out because importing torch.optim's compiler support costs a second or more in every stage, and because
this way the whole state is a few named tensors that a checkpoint can hold.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from robustdistill.config import Training

BETA1, BETA2, TINY = 0.9, 0.999, 1e-8  # of Adam


class Optimizer:
    """Decay acts on matrices and filters only, not on biases and norms (`weights` holds the decayed ones first)."""

    def __init__(self, training: Training, modules: list[nn.Module]) -> None:
        self._training = training
        trained = [weight for module in modules for weight in module.parameters() if weight.requires_grad]
        self._decayed = sum(weight.dim() > 1 for weight in trained)
        self.weights: list[Tensor] = sorted(trained, key=lambda weight: weight.dim() <= 1)  # stable
        self._modules = [found for module in modules if (found := _positions(self.weights, module))]
        # As the weights in memory layout: the foreach kernels are fastest where all operands agree.
        names = ("momentum",) if training.optimizer == "sgd" else ("mean", "square")
        self.moments = {name: [torch.zeros_like(weight) for weight in self.weights] for name in names}

    def backward(self, loss: Tensor) -> float:
        """Fresh gradients of the scalar `loss`, those of each module scaled down to norm `clip` at most.

        Returns the norm of all before that. Each module for itself: a companion's gradient must not slow the student.
        """
        for weight in self.weights:
            weight.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        grads = self._grads()
        norms = [self._clip([grads[position] for position in module]) for module in self._modules]
        return float(torch.linalg.vector_norm(torch.stack(norms)))

    def _clip(self, grads: list[Tensor]) -> Tensor:
        norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
        torch._foreach_mul_(grads, (self._training.clip / (norm + 1e-6)).clamp(max=1.0))
        return norm

    @torch.no_grad()
    def update(self, rate: float, step: int) -> None:
        """One step with learning rate `rate`; `step` counts from 0."""
        if self._training.optimizer == "sgd":
            self._sgd(rate)
        else:
            self._adam(rate, step + 1)

    def _sgd(self, rate: float) -> None:
        """v ← m v + g, w ← w − rate · (g + m v), with g = ∇ + decay · w."""
        grads, momentum, velocity = self._grads(), self._training.momentum, self.moments["momentum"]
        decayed = self._decayed
        torch._foreach_add_(grads[:decayed], self.weights[:decayed], alpha=self._training.weight_decay)
        torch._foreach_mul_(velocity, momentum)
        torch._foreach_add_(velocity, grads)
        torch._foreach_add_(grads, velocity, alpha=momentum)
        torch._foreach_add_(self.weights, grads, alpha=-rate)

    def _adam(self, rate: float, count: int) -> None:
        """w ← (1 − rate · decay) w − rate · m̂ / (√v̂ + 1e-8), with m̂ and v̂ freed of their start at 0."""
        grads, mean, square = self._grads(), self.moments["mean"], self.moments["square"]
        torch._foreach_mul_(self.weights[: self._decayed], 1.0 - rate * self._training.weight_decay)
        torch._foreach_lerp_(mean, grads, 1.0 - BETA1)
        torch._foreach_mul_(square, BETA2)
        torch._foreach_addcmul_(square, grads, grads, 1.0 - BETA2)
        scale = torch._foreach_sqrt(square)
        torch._foreach_div_(scale, (1.0 - BETA2**count) ** 0.5)
        torch._foreach_add_(scale, TINY)
        torch._foreach_addcdiv_(self.weights, mean, scale, -rate / (1.0 - BETA1**count))

    def _grads(self) -> list[Tensor]:
        """A weight that the loss does not reach has gradient 0, so that it decays and slows down like the others."""
        for weight in self.weights:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        return [weight.grad for weight in self.weights if weight.grad is not None]

    def state(self) -> dict[str, Tensor]:
        """{"<name>/<position of the weight>": tensor}, such as "momentum/3"."""
        return {f"{name}/{n}": each for name, tensors in self.moments.items() for n, each in enumerate(tensors)}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `state`."""
        for key, ours in self.state().items():
            ours.copy_(tensors[key])


def _positions(weights: list[Tensor], module: nn.Module) -> list[int]:
    """Where the module's parameters stand in `weights`."""
    own = {id(weight) for weight in module.parameters()}
    return [position for position, weight in enumerate(weights) if id(weight) in own]
