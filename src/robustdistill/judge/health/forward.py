"""The model as a function: finite, and the same whatever it is asked with, before and how often."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from robustdistill.attacks import Access
from robustdistill.judge.anew import NotAsked
from robustdistill.judge.health.check import Check, limit
from robustdistill.judge.subject import BATCH
from robustdistill.judge.trial import Trial

PARITY = 1e-3  # difference of logits between PyTorch and the exported file, relative to the largest logit if above 1
ROUNDING = 1e-4  # of logits, relative to the largest: sums in another order differ by about 1e-6
NUDGE = 1e-5  # of the box: below what a picture of 16 bits can tell
JUMP = 0.01  # of logits, relative to the largest: a net of slope 100 moves by 0.001
SINGLE = 32  # examples that are also asked one at a time


def forward(trial: Trial) -> Iterator[Check]:
    """All checks of what the model answers, as a function of its inputs alone."""
    subject, x = trial.subject, trial.sample.x[:BATCH]
    once, again = subject.logits(x), subject.logits(x)
    bad = int((~torch.isfinite(subject.logits(trial.worst))).sum() + (~torch.isfinite(once)).sum())
    yield limit("finite_logits", bad, 0, f"{bad} logits on clean and attacked inputs are not finite numbers")
    drift = float(_difference(again, once).max())
    yield limit("deterministic", drift, 0.0, f"the same inputs twice give logits that differ by at most {drift:.2g}")
    yield from _company(trial, x, once)
    yield _history(trial, x, once)
    if subject.access < Access.GRADIENT:
        return  # there is one form of it only
    yield _mode(trial, x, once)
    yield _smooth(trial, x, once)
    if subject.file is None:
        return
    served = subject.served(x)
    gap = float(np.abs(once.cpu().numpy() - served).max())
    most = PARITY * max(1.0, float(np.abs(served).max()))
    yield limit("parity", gap, most, f"PyTorch and the exported file give logits that differ by at most {gap:.2g}")


def _company(trial: Trial, x: Tensor, once: Tensor) -> Iterator[Check]:
    """An attack chooses one input, not its neighbours in the batch."""
    turned = trial.subject.logits(x.flip(0)).flip(0)
    gap = _gap(turned, once)
    yield limit("batch_order", gap, ROUNDING, f"the same inputs in reverse order change the logits by {gap:.2g}")
    single = torch.cat([trial.subject.logits(each[None]) for each in x[:SINGLE]])
    gap = _gap(single, once[:SINGLE])
    yield limit("batch_of_one", gap, ROUNDING, f"inputs asked one at a time change the logits by {gap:.2g}")


def _mode(trial: Trial, x: Tensor, once: Tensor) -> Check:
    """Attacks ask with gradients, users without."""
    with torch.enable_grad():
        found: Tensor = trial.subject.model(x.detach().clone().requires_grad_(True)).detach()
    gap = _gap(found, once)
    return limit("gradient_mode", gap, ROUNDING, f"asking for gradients changes the logits by {gap:.2g}")


def _smooth(trial: Trial, x: Tensor, once: Tensor) -> Check:
    """Noise seeded by the input is the same when asked twice, and another one next to it. Median over the examples."""
    size = NUDGE * (trial.threat.high - trial.threat.low)
    nudged = torch.where(x + size > trial.threat.high, x - size, x + size)
    change = _difference(trial.subject.logits(nudged), once).amax(1) / _largest(once)
    value = float(change.median())
    return limit("smooth", value, JUMP, f"a change of {NUDGE:.0e} of the box moves the logits by {value:.2g} (median)")


def _history(trial: Trial, x: Tensor, once: Tensor) -> Check:
    """The logits before the first attack and after the last; of a copy made before, which sees the attacked inputs
    first; and of a fresh process, which does so, too."""
    worst, where = trial.worst[:BATCH], "in this process, where alone it was asked"
    now, found = trial.subject.logits(worst), list[tuple[Tensor, Tensor]]()
    if trial.fresh is not None:
        with torch.no_grad():
            found.append((trial.fresh(worst), trial.fresh(x)))
    if trial.subject.anew is not None:
        try:
            found.append(trial.subject.anew.answers(worst, x))
            where = "in this process or in a fresh one"
        except NotAsked as error:
            where = f"in this process; a fresh one could not be asked: {error}"
    gaps = [max(_gap(attacked, now), _gap(clean, trial.first)) for attacked, clean in found]
    gap = max([_gap(once, trial.first), *gaps])
    return limit("history", gap, ROUNDING, f"what the model was asked before changes the logits by {gap:.2g} {where}")


def _gap(found: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest logit."""
    return float(_difference(found, expected).max()) / _largest(expected)


def _difference(found: Tensor, expected: Tensor) -> Tensor:
    """|found − expected|; where both are the same non-number there is none."""
    same = (found == expected) | (torch.isnan(found) & torch.isnan(expected))
    return torch.where(same, torch.zeros_like(expected), (found - expected).abs())


def _largest(logits: Tensor) -> float:
    """The largest finite one, in size; 1 where there is none."""
    size = logits[torch.isfinite(logits)].abs()
    return max(float(size.max()) if len(size) else 1.0, 1e-12)
