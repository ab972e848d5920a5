"""The one Kullback-Leibler divergence of the project.

Published code averages it over examples and classes in different ways, and learning rates silently depend on that.
Here it is per example, never divided by the number of classes, with T² written out.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def kl(target_logits: Tensor, prediction_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """T² · KL(softmax(target / T) ‖ softmax(prediction / T)), [B, C] and [B, C] to [B].

    Differentiable in both arguments; detaching is the caller's choice (TRADES must not). Computed in float32 or
    better. T² keeps gradients of one size over temperatures (Hinton, Vinyals, Dean 2015, section 2).
    """
    log_p = _log_softmax(target_logits, temperature)
    log_q = _log_softmax(prediction_logits, temperature)
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(dim=1)


def _log_softmax(logits: Tensor, temperature: float) -> Tensor:
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    # A class of probability 0 adds 0, not 0 · (−inf): the floor keeps the logarithm finite.
    return F.log_softmax(wide / temperature, dim=1).clamp_min(torch.finfo(wide.dtype).min)
