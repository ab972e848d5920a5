"""The proposals of Square, on numbers that can be checked by hand."""

from __future__ import annotations

import pytest
import torch

from robustdistill.attacks.ball import ball
from robustdistill.attacks.windows import _pyramid, _pyramids, pattern
from robustdistill.rng import Draws
from robustdistill.threat import NORMS, ThreatModel


def test_a_pyramid_by_hand() -> None:
    """n = 1: the middle has M = 1, 1/4 + 1, its neighbours M = 0, 1/4."""
    assert _pyramid(3, 3).tolist() == [[0.25] * 3, [0.25, 1.25, 0.25], [0.25] * 3]
    assert _pyramid(3, 1).tolist() == [[0.25], [1.25], [0.25]]


@pytest.mark.parametrize("edge", [1, 2, 3, 5, 8])
def test_both_halves_have_length_one_together_and_opposite_signs(edge: int) -> None:
    flat, turned = _pyramids(edge)
    half = edge // 2
    assert float(flat.norm()) == pytest.approx(1.0)
    assert (flat[:, :half] >= 0).all() and (flat[:, half:] <= 0).all()
    assert torch.equal(turned, flat.T)


@pytest.mark.parametrize("share", [0.8, 0.3, 0.05, 0.001])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 6), (2, 3, 3), (1, 1, 4)])
@pytest.mark.parametrize("norm", NORMS)
def test_proposals_use_the_whole_budget_and_change_windows_only(
    norm: str, shape: tuple[int, ...], share: float
) -> None:
    geometry = ball(ThreatModel(norm, 0.05, -10.0, 10.0))  # type: ignore[arg-type]
    shapes, index, draws = pattern(geometry), torch.arange(30), Draws(1)
    x = draws.uniform(torch.empty(30, *shape), index, "x")
    first = shapes.first(x, draws.uniform(torch.empty(30, *shapes.first_draws(x)), index, "first"))
    after = shapes.proposal(x, first, draws.uniform(torch.empty(30, shapes.draws(x)), index, "next"), share)
    for point in (first, after):
        assert geometry.contains(point, x).all()
        if min(shape[1:]) >= 3 or norm == "linf":  # an l2 window of one pixel may cancel itself
            assert torch.allclose(geometry.distance(point, x), torch.full((30,), 0.05).double(), atol=1e-5)
    changed = (after != first).flatten(1).any(1)
    if norm == "linf":
        assert changed.all()  # no query is wasted on the same point
        rows = (after != first).any(1)
        assert int(rows.flatten(1).sum(1).max()) <= max(1, round((share * shape[1] * shape[2]) ** 0.5)) ** 2
        assert len({tuple(mask.flatten().tolist()) for mask in rows}) > 1  # each example has a place of its own
    else:
        assert changed.float().mean() > 0.8
