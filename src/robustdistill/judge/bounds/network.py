"""A network as the graph of its operations, followed by boxes instead of points.

The graph is what torch.fx records of one forward pass. What depends on values cannot be recorded, what is recorded and
not known is refused: NoBound, never a wrong bound.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from robustdistill.judge.bounds.interval import Interval, NoBound, layer
from robustdistill.models.classifier import Classifier

ADD = (operator.add, operator.iadd, torch.add)
RELU = (F.relu, torch.relu)
# None falls where an entry of its input rises.
METHODS: dict[str, Callable[..., Tensor]] = {"flatten": torch.flatten, "mean": torch.mean, "relu": torch.relu}
NEW = (nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d)  # layers whose result is nobody else's memory


class Network:
    """Bounds of the logits of one model, in evaluation mode. Raises NoBound if its operations cannot be recorded."""

    def __init__(self, model: nn.Module) -> None:
        self.scale: tuple[Tensor, Tensor] | None = None
        if isinstance(model, Classifier):
            if (model.std <= 0).any():
                raise NoBound("no bound for a normalisation that turns the input over")
            self.scale, model = (model.mean, model.std), model.net
        try:
            self.modules = dict(model.named_modules())
            self.graph = fx.Tracer().trace(model)
        except Exception as error:  # the code of any user's model runs here
            raise NoBound(f"the operations of {type(model).__name__} depend on its input") from error
        nodes = list(self.graph.nodes)
        self._answer: Any = nodes[-1].args[0]
        if sum(node.op == "placeholder" for node in nodes) != 1 or not isinstance(self._answer, fx.Node):
            raise NoBound("no bound unless one input gives one answer")

    def logits(self, x: Interval) -> Interval:
        """Bounds [B, C] for all inputs of the box x [B, *shape]. Differentiable. Raises NoBound."""
        return self._run(x, self._answer)

    def margins(self, x: Interval, y: Tensor) -> Tensor:
        """Lower bounds [B, C] of z_y − z_k, 0 at k = y. A last linear layer is merged with the difference, which makes
        them tighter (Gowal et al. 2018, section 3)."""
        last = self._answer
        head = self.modules[str(last.target)] if last.op == "call_module" and len(last.args) == 1 else None
        if isinstance(head, nn.Linear):
            lower = _merged(head, self._run(x, last.args[0]), y)
        else:
            bounds = self.logits(x)
            lower = bounds.low.gather(1, y[:, None]) - bounds.high
        return lower.scatter(1, y[:, None], 0.0)

    def _run(self, x: Interval, until: Any) -> Interval:
        """Bounds of what the node `until` computes."""
        if self.scale is not None:
            mean, std = (value.to(x.low) for value in self.scale)
            x = x.rising(lambda v: (v - mean) / std)
        known: dict[fx.Node, Interval] = {}
        for node in self.graph.nodes:
            known[node] = x if node.op == "placeholder" else self._step(node, known)
            if node is until:
                break
        return _value(until, known)

    def _step(self, node: fx.Node, known: dict[fx.Node, Interval]) -> Interval:
        if node.op == "call_module" and len(node.args) == 1 and not node.kwargs:
            module = self.modules[str(node.target)]
            if getattr(module, "inplace", False):
                self._require_own(node)
            return layer(module, _value(node.args[0], known))
        if node.op == "call_function" and node.target in ADD and len(node.args) == 2 and not node.kwargs:
            if node.target is operator.iadd:
                self._require_own(node)
            one, other = (_value(arg, known) for arg in node.args)
            return one.plus(other)
        if node.op == "call_function" and node.target in RELU and node.kwargs in ({}, {"inplace": False}):
            return _value(node.args[0], known).rising(torch.relu)
        if node.target in (torch.flatten, "flatten", "mean", "relu"):
            function = METHODS.get(str(node.target), torch.flatten)
            return _value(node.args[0], known).rising(lambda v: function(v, *_plain(node.args[1:]), **node.kwargs))
        raise NoBound(f"no bound for the operation {getattr(node.target, '__name__', node.target)}")

    def _require_own(self, node: fx.Node) -> None:
        """What is written in place must be read by nothing else, under this or another name."""
        source = node.args[0]
        new = isinstance(source, fx.Node) and (
            (source.op == "call_module" and isinstance(self.modules[str(source.target)], NEW)) or source.target in ADD
        )
        if not new or len(source.users) != 1:  # type: ignore[union-attr]
            raise NoBound("no bound where a value is overwritten that something else may read")


def _merged(head: nn.Linear, x: Interval, y: Tensor) -> Tensor:
    """Lower bounds of (W_y − W_k) v + b_y − b_k over the box, [B, C]."""
    layer(head, x)  # refuses what was changed
    weight = head.weight.to(x.low)
    apart = weight[y][:, None] - weight[None]
    middle, radius = (x.low + x.high) / 2, (x.high - x.low) / 2
    lower = torch.einsum("bkf,bf->bk", apart, middle) - torch.einsum("bkf,bf->bk", apart.abs(), radius)
    if head.bias is None:
        return lower
    bias = head.bias.to(x.low)
    return lower + bias[y][:, None] - bias[None]


def _value(arg: Any, known: dict[fx.Node, Interval]) -> Interval:
    if not isinstance(arg, fx.Node):
        raise NoBound("no bound for a value that is not computed from the input")
    return known[arg]


def _plain(args: tuple[Any, ...]) -> tuple[Any, ...]:
    if any(isinstance(arg, fx.Node) for arg in args):
        raise NoBound("no bound where a size is computed")
    return args
