"""Whatever comes in, what comes out is in the ball and in the box."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from robustdistill.attacks.ball import Ball, ball
from robustdistill.rng import Draws
from robustdistill.threat import NORMS, ThreatModel

quick = settings(max_examples=60, deadline=None, derandomize=True)


class Case(NamedTuple):
    ball: Ball
    x: Tensor  # in the box
    other: Tensor  # anywhere
    seed: int

    def start(self, kind: str, restart: int = 0) -> Tensor:
        index = torch.arange(len(self.x)) + self.seed
        return self.ball.start(self.x, Draws(self.seed), "test", index, restart, kind)  # type: ignore[arg-type]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    low = draw(st.sampled_from([0.0, -1.0, -2.5, 100.0]))
    high = low + draw(st.sampled_from([1.0, 0.5, 255.0]))
    eps = draw(st.floats(1e-3, 3.0)) * (high - low)
    shape = draw(st.sampled_from([(1, 1), (3, 5), (2, 3, 4, 4), (4, 1, 7)]))
    unit = draw(hnp.arrays(np.float32, shape, elements=st.floats(0, 1, width=32)))
    wild = draw(hnp.arrays(np.float32, shape, elements=st.floats(-1000, 1000, width=32)))
    x = (low + torch.from_numpy(unit) * (high - low)).clamp(low, high)
    threat = ThreatModel(draw(st.sampled_from(NORMS)), eps, low, high)
    return Case(ball(threat), x, torch.from_numpy(wild), draw(st.integers(0, 2**40)))


@quick
@given(cases())
def test_project_ends_inside_and_a_second_time_changes_nothing(case: Case) -> None:
    once = case.ball.project(case.other, case.x)
    assert case.ball.contains(once, case.x).all()
    assert torch.allclose(case.ball.project(once, case.x), once, rtol=0, atol=case.ball.tolerance)


@quick
@given(cases())
def test_project_leaves_inner_points_alone(case: Case) -> None:
    inner = case.x + 0.5 * (case.ball.project(case.other, case.x) - case.x)
    assert torch.allclose(case.ball.project(inner, case.x), inner, rtol=0, atol=case.ball.tolerance)


@quick
@given(cases(), st.sampled_from(["uniform", "gaussian", "none"]), st.integers(0, 3))
def test_starts_are_inside(case: Case, kind: str, restart: int) -> None:
    assert case.ball.contains(case.start(kind, restart), case.x).all()


@quick
@given(cases())
def test_snap_stays_inside_and_on_the_grid(case: Case) -> None:
    threat = case.ball.threat
    step = (threat.high - threat.low) / 255
    x = (threat.low + ((case.x.double() - threat.low) / step).round() * step).float()
    snapped = case.ball.snap(x, case.ball.project(case.other, x))
    level = (snapped.double() - threat.low) / step
    assert case.ball.contains(snapped, x).all()
    assert (level - level.round()).abs().max() < 0.01
    assert torch.equal(case.ball.snap(x, snapped), snapped)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("away", [-31, -8, -3, -1, 1, 2, 5, 8, 13])
def test_snap_does_not_lose_a_level_to_float_rounding(norm: str, away: int) -> None:
    """8/255 away is 8 levels away, whichever way float32 rounds it: half of these offsets come out as 7.9999."""
    geometry = ball(ThreatModel(norm, abs(away) / 255))  # type: ignore[arg-type]
    x = torch.arange(31, 225, dtype=torch.float32).view(-1, 1) / 255
    x_adv = geometry.project(x + away, x)
    assert torch.equal((geometry.snap(x, x_adv) * 255).round(), (x * 255).round() + away)


def test_snap_rounds_towards_x_only_where_the_nearest_level_is_outside() -> None:
    x = torch.tensor([[100 / 255, 100 / 255]])
    x_adv = x + torch.tensor([[2.6, 1.6]]) / 255
    levels = {
        norm: (ball(ThreatModel(norm, eps / 255)).snap(x, x_adv) * 255 - 100).round().flatten().tolist()
        for norm, eps in (("linf", 2.7), ("l2", 3.1))
    }
    assert levels == {"linf": [2, 2], "l2": [2, 1]}  # linf by feature; l2 by example: (3, 2) is 3.6 long


@pytest.mark.parametrize(("norm", "length"), [("linf", 0.2), ("l2", math.sqrt(5 * 0.2**2))])
def test_contains_sees_a_step_too_far_out_of_the_box_and_nan(norm: str, length: float) -> None:
    geometry = ball(ThreatModel(norm, length))  # type: ignore[arg-type]
    x = torch.full((4, 5), 0.5)
    x[2] = 0.95
    x_adv = x + torch.tensor([0.2, 0.2001, 0.2, float("nan")]).view(-1, 1)
    assert geometry.contains(x_adv, x).tolist() == [True, False, False, False]
    assert geometry.contains(x_adv, x, tol=1.0).tolist() == [True, True, True, False]
    assert geometry.distance(x_adv, x)[0].item() == pytest.approx(length, rel=1e-6)


@pytest.mark.parametrize("scale", [1.0, 1e30, 1e-30])
@pytest.mark.parametrize("norm", NORMS)
def test_a_step_has_its_size_however_small_or_large_the_gradient(norm: str, scale: float) -> None:
    geometry = ball(ThreatModel(norm, 1.0))  # type: ignore[arg-type]
    x = torch.zeros(2, 3, 2)
    grad = torch.tensor([3.0, -4.0, 0.0, 0.0, 0.0, 0.0]).view(3, 2).repeat(2, 1, 1) * scale
    grad[1] = 0
    moved = geometry.step(x, grad, 0.25)
    expected = {"linf": [0.25, -0.25], "l2": [0.15, -0.2]}[norm]
    assert moved[0].flatten().tolist() == pytest.approx([*expected, 0, 0, 0, 0])
    assert torch.equal(moved[1], x[1])  # no gradient, no move, no NaN


@st.composite
def planes(draw: st.DrawFn) -> tuple[Case, Tensor, Tensor]:
    case = draw(cases())
    numbers = st.floats(-4, 4, width=32).map(lambda value: round(value, 2))  # zeros and ties among them
    normal = torch.from_numpy(draw(hnp.arrays(np.float32, case.x.shape, elements=numbers)))
    span = case.ball.threat.high - case.ball.threat.low
    gaps = [draw(st.floats(-3, 3)) * span for _ in range(len(case.x))]
    return case, normal, torch.tensor(gaps, dtype=torch.float32)


@quick
@given(planes())
def test_the_way_onto_a_plane_is_the_shortest_inside_the_box(plane: tuple[Case, Tensor, Tensor]) -> None:
    """By the conditions of optimality the shortest way is clip(t · d) with d = sign(normal) in linf and d = normal in
    l2, for one t, found here by bisection in float64."""
    case, normal, gap = plane
    threat = case.ball.threat
    found = case.ball.onto_plane(case.x, normal, gap).double().flatten(1)
    x, w = case.x.double().flatten(1), normal.double().flatten(1)
    away = gap.double().sign()[:, None] * (w.sign() if threat.norm == "linf" else w)

    def way(t: Tensor) -> Tensor:
        return torch.maximum(torch.minimum(t[:, None] * away, threat.high - x), threat.low - x)

    low, high = torch.zeros(len(x), dtype=torch.float64), torch.full((len(x),), 1e7, dtype=torch.float64)
    for _ in range(200):
        middle = (low + high) / 2
        short = (way(middle) * w).sum(1).abs() < gap.double().abs()
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    expected, span = way(high), threat.high - threat.low
    assert torch.allclose((found * w).sum(1), (expected * w).sum(1), rtol=1e-4, atol=1e-4 * span)
    norm = {"linf": torch.inf, "l2": 2}[threat.norm]
    lengths = [torch.linalg.vector_norm(delta, ord=norm, dim=1) for delta in (found, expected)]
    moves = (w != 0).any(1) & (gap != 0)
    assert torch.allclose(lengths[0][moves], lengths[1][moves], rtol=1e-2, atol=1e-3 * span)
    assert (found[~moves] == 0).all()
    assert (x + found >= threat.low - case.ball.tolerance).all() and (
        x + found <= threat.high + case.ball.tolerance
    ).all()


def test_a_plane_is_found_by_hand_and_by_gradients_of_any_size() -> None:
    """Linf: 3τ + min(τ, 0.1) = 1 gives τ = 0.3; the wall stops the second feature. L2: shares 3 : 1, unstopped."""
    x = torch.tensor([[0.5, 0.9]])
    normal, gap = torch.tensor([[3.0, 1.0]]), torch.tensor([1.0])
    for scale in (1.0, 1e-25, 1e25):
        way = ball(ThreatModel("linf", 1.0)).onto_plane(x, scale * normal, scale * gap)
        assert way.tolist()[0] == pytest.approx([0.3, 0.1], rel=1e-5)
        way = ball(ThreatModel("l2", 1.0)).onto_plane(x, scale * normal, scale * gap)
        assert way.tolist()[0] == pytest.approx([0.3, 0.1], rel=1e-5)
        assert ball(ThreatModel("l2", 1.0)).onto_plane(x, 0 * normal, gap).tolist() == [[0.0, 0.0]]
    far = ball(ThreatModel("l2", 1.0)).onto_plane(x, normal, -100 * gap)
    assert far.tolist()[0] == pytest.approx([-0.5, -0.9])  # out of reach: the corner of the box


@pytest.mark.parametrize("norm", NORMS)
def test_a_step_may_have_a_length_for_each_example(norm: str) -> None:
    geometry, x = ball(ThreatModel(norm, 1.0)), torch.zeros(2, 3, 2)  # type: ignore[arg-type]
    grad = torch.arange(12, dtype=torch.float32).view(2, 3, 2) - 5
    both = geometry.step(x, grad, torch.tensor([0.5, 0.1]).view(2, 1, 1))
    assert torch.equal(both[0], geometry.step(x, grad, 0.5)[0]) and torch.equal(both[1], geometry.step(x, grad, 0.1)[1])


@pytest.mark.parametrize("norm", NORMS)
def test_uniform_starts_fill_the_ball(norm: str) -> None:
    """In 2 dimensions half of the points lie beyond the radius that halves the volume, eps / sqrt 2."""
    geometry = ball(ThreatModel(norm, 0.5, -10.0, 10.0))  # type: ignore[arg-type]
    x = torch.zeros(4000, 2)
    start = geometry.start(x, Draws(3), "fill", torch.arange(4000))
    outer = (geometry.distance(start, x) > 0.5 / math.sqrt(2)).double().mean().item()
    assert abs(outer - 0.5) < 0.03
    assert start.mean(dim=0).abs().max() < 0.02


@pytest.mark.parametrize("norm", NORMS)
def test_starts_are_keyed_by_example_and_restart_not_by_batch(norm: str) -> None:
    geometry = ball(ThreatModel(norm, 0.1))  # type: ignore[arg-type]
    x, index, draws = torch.full((6, 4), 0.5), torch.arange(6) * 7, Draws(5)
    whole = geometry.start(x, draws, "t", index)
    assert torch.equal(geometry.start(x[3:5], draws, "t", index[3:5]), whole[3:5])
    again = geometry.start(x, draws, "t", index, restart=1)
    radii = geometry.distance(again, x), geometry.distance(whole, x)
    assert ((radii[0] - radii[1]).abs() > 1e-5).all()  # in l2 too the radius is drawn anew
    assert not torch.equal(geometry.start(x, draws.at(1), "t", index), whole)


def test_the_gaussian_start_scales_with_the_range() -> None:
    x = torch.full((200, 50), 127.0)
    start = ball(ThreatModel("linf", 8.0, 0.0, 255.0)).start(x, Draws(0), "t", torch.arange(200), 0, "gaussian")
    assert (start - x).std().item() == pytest.approx(0.255, rel=0.05)
