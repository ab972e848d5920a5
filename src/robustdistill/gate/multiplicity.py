"""Several tests read at once: Holm's step-down correction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p-values in the order given; those at most α may be rejected together (Holm 1979).

    The k-th smallest of m is multiplied by m − k + 1, never falls below one before it and never exceeds 1: the chance
    of a single false rejection among all m is at most α, however the tests depend on each other.
    """
    given = np.asarray(p, dtype=float)
    if not np.all((given >= 0) & (given <= 1)):
        raise ValueError(f"p-values {list(p)} are not all in [0, 1]")
    order = np.argsort(given, kind="stable")
    stepped = np.maximum.accumulate(given[order] * np.arange(len(given), 0, -1))
    adjusted = np.empty_like(given)
    adjusted[order] = np.minimum(1.0, stepped)
    return [float(value) for value in adjusted]
