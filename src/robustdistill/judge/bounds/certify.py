"""Examples whose answer no input of the threat model changes, by interval bounds in float64."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from robustdistill.attacks.ball import ball
from robustdistill.judge.bounds.interval import Interval, NoBound
from robustdistill.judge.bounds.network import Network
from robustdistill.threat import ThreatModel

BATCH = 64  # boxes at once: float64, two tensors for each activation
SLACK = 1e-4  # a margin must exceed it, relative to the largest logit if above 1: the model itself rounds to float32


def certified(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel) -> NDArray[np.bool_]:
    """[B] bool. x [B, *shape] float32 in the box, y [B]. An L2 ball lies in the L-inf ball of its eps, which is used.

    Raises NoBound for a model with unknown parts, or whose recorded operations do not give its own logits at x.
    """
    network, found = Network(model), []
    eps = threat.eps + ball(threat).tolerance  # what an attack may use
    with torch.no_grad():
        for xs, ys in zip(torch.split(x, BATCH), torch.split(y, BATCH), strict=True):
            size = _require_same(network, model, xs)
            wide = xs.double()
            low, high = threat.low - (eps - threat.eps), threat.high + (eps - threat.eps)
            box = Interval((wide - eps).clamp(low, high), (wide + eps).clamp(low, high))
            margins = network.margins(box, ys).scatter(1, ys[:, None], torch.inf)
            found.append((margins.amin(1) > SLACK * size).cpu().numpy())
    return np.concatenate(found)


def _require_same(network: Network, model: nn.Module, x: Tensor) -> Tensor:
    """The record may hide what the code does (state, chance). Returns max(1, largest |logit|) of each example [B]."""
    own: Tensor = model(x).double()
    point = network.logits(Interval(x.double(), x.double()))
    size = own.abs().amax(1).clamp(min=1.0)
    apart = torch.maximum((own - point.low).abs(), (own - point.high).abs()).amax(1)
    if not bool((apart <= SLACK / 2 * size).all()):
        raise NoBound("the recorded operations do not give the model's own logits")
    return size
