"""Geometry of a threat: where an attack may start, how it moves, and how it is brought back inside.

All points are x_adv [B, *shape] near x [B, *shape], both in the units of the input. Every result lies in the ball and
in the box up to `tolerance`, the rounding of float32 at the size of the numbers at hand.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor

from robustdistill.rng import Draws
from robustdistill.threat import ThreatModel

Start = Literal["uniform", "gaussian", "none"]

PIECES = 64  # most Newton steps to a plane; 3 to 8 are usual
GAUSSIAN = 0.001  # of the input's range: the start of TRADES (Zhang et al. 2019) and RSLAD (Zi et al. 2021)


class Ball(ABC):
    """All x_adv with ‖x_adv − x‖ ≤ eps and low ≤ x_adv ≤ high, for x inside the box."""

    def __init__(self, threat: ThreatModel) -> None:
        self.threat = threat
        self.tolerance = 1e-6 * max(1.0, abs(threat.low), abs(threat.high), threat.eps)

    def start(
        self, x: Tensor, draws: Draws, tag: str, index: Tensor, restart: int = 0, kind: Start = "uniform"
    ) -> Tensor:
        """A first point: uniform in the ball, x + 0.001 · range · N(0, 1), or x itself; then projected."""
        if kind == "none":
            return x.clone()
        if kind == "gaussian":
            scale = GAUSSIAN * (self.threat.high - self.threat.low)
            return self.project(x + scale * draws.normal(x, index, tag, restart=restart), x)
        return self.project(x + self._uniform(x, draws, tag, index, restart), x)

    def contains(self, x_adv: Tensor, x: Tensor, tol: float | None = None) -> Tensor:
        """[B] bool: inside the ball and the box, up to tol (default: `tolerance`). False where anything is NaN."""
        tol = self.tolerance if tol is None else tol
        flat = x_adv.flatten(1)
        boxed = ((flat >= self.threat.low - tol) & (flat <= self.threat.high + tol)).all(dim=1)
        return boxed & (self.distance(x_adv, x) <= self.threat.eps + tol)

    def snap(self, x: Tensor, x_adv: Tensor, levels: int = 255) -> Tensor:
        """x_adv on the grid low + k · (high − low) / levels, still inside: what survives being stored as uint8.

        x must lie on the grid, as all stored data does. Rounds to the nearest level, and towards x where that would
        leave the ball. x_adv must be inside.
        """
        step = (self.threat.high - self.threat.low) / levels
        origin = ((x.double() - self.threat.low) / step).round()
        offset = (x_adv.double() - self.threat.low) / step - origin
        # Half of the tolerance: float rounding must not cost a point on the ball's surface a whole level.
        level = origin + self._round(offset, (self.threat.eps + self.tolerance / 2) / step)
        level = level.clamp(0, levels)
        return (self.threat.low + level * step).to(x_adv.dtype)

    @abstractmethod
    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """‖x_adv − x‖ of each example, [B] float64."""

    def boxed(self, x_adv: Tensor) -> Tensor:
        """Into the box alone."""
        return x_adv.clamp(self.threat.low, self.threat.high)

    def onto_plane(self, x: Tensor, normal: Tensor, gap: Tensor) -> Tensor:
        """The shortest δ [B, *shape] with ⟨normal, δ⟩ = gap [B] and x + δ in the box (Croce and Hein 2020b, eq. 5).

        Where the box does not reach that far: as far as it does. x must be in the box.
        By duality δ_j = ± min(t · pace_j, room_j) with one t for each example: g(t) = Σ_j |normal_j| · |δ_j| rises, is
        concave and piecewise linear, so that Newton's method from the left reaches g(t) = |gap| without overshooting.
        """
        side = column(torch.where(gap < 0, -1.0, 1.0).to(normal.dtype), normal)
        weight = (normal * side).flatten(1)
        flat = x.flatten(1)
        room = torch.where(weight > 0, self.threat.high - flat, flat - self.threat.low)
        unit = weight.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny)
        size = weight.abs() / unit
        pace = self._pace(size)
        wanted = torch.minimum(gap.abs() / unit.squeeze(1), (size * room).sum(dim=1))
        t = torch.zeros_like(wanted)
        for _ in range(PIECES):
            free = t[:, None] * pace
            short = wanted - (size * torch.minimum(free, room)).sum(dim=1)
            slope = (size * pace * (free < room)).sum(dim=1)
            going = (short > 1e-6 * wanted) & (slope > 0)
            if not bool(going.any()):
                break
            t = torch.where(going, t + short / slope, t)
        return (weight.sign() * torch.minimum(t[:, None] * pace, room)).view_as(x)

    @abstractmethod
    def step(self, x_adv: Tensor, grad: Tensor, size: float | Tensor) -> Tensor:
        """The steepest ascent step of length `size` (in the norm, units of the input; one for all, or one for each
        example, [B, 1, ...]). No projection."""

    @abstractmethod
    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Into the ball, then into the box. Since x is in the box, the second never leaves the first."""

    @abstractmethod
    def _uniform(self, x: Tensor, draws: Draws, tag: str, index: Tensor, restart: int) -> Tensor:
        """A draw from the ball around 0, of the shape of x."""

    @abstractmethod
    def _pace(self, size: Tensor) -> Tensor:
        """How fast each feature moves on the shortest way to a plane with |normal| = size, [B, D]."""

    @abstractmethod
    def _round(self, offset: Tensor, reach: float) -> Tensor:
        """Whole levels to move by: the nearest if within `reach` levels, else rounded towards x."""


class LinfBall(Ball):
    """|x_adv − x| ≤ eps in each feature."""

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        distance: Tensor = torch.linalg.vector_norm((x_adv.double() - x.double()).flatten(1), ord=torch.inf, dim=1)
        return distance

    def step(self, x_adv: Tensor, grad: Tensor, size: float | Tensor) -> Tensor:
        return x_adv + size * grad.sign()

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        near = torch.clamp(x_adv, x - self.threat.eps, x + self.threat.eps)
        return near.clamp_(self.threat.low, self.threat.high)

    def _uniform(self, x: Tensor, draws: Draws, tag: str, index: Tensor, restart: int) -> Tensor:
        return self.threat.eps * (2 * draws.uniform(x, index, tag, restart=restart) - 1)

    def _pace(self, size: Tensor) -> Tensor:
        return torch.ones_like(size)

    def _round(self, offset: Tensor, reach: float) -> Tensor:
        nearest = offset.round()
        return torch.where(nearest.abs() <= reach, nearest, offset.trunc())


class L2Ball(Ball):
    """‖x_adv − x‖₂ ≤ eps over all features of an example."""

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        distance: Tensor = torch.linalg.vector_norm((x_adv.double() - x.double()).flatten(1), dim=1)
        return distance

    def step(self, x_adv: Tensor, grad: Tensor, size: float | Tensor) -> Tensor:
        return x_adv + size * _direction(grad)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        delta = x_adv - x
        norm = torch.linalg.vector_norm(delta.flatten(1), dim=1)
        factor = (self.threat.eps / norm.clamp_min(self.threat.eps)).to(delta.dtype)
        near = x + delta * column(factor, delta)
        return near.clamp_(self.threat.low, self.threat.high)

    def _uniform(self, x: Tensor, draws: Draws, tag: str, index: Tensor, restart: int) -> Tensor:
        # Uniform in the D-ball: a uniform direction times eps · U^(1/D).
        direction = _direction(draws.normal(x, index, tag, restart=restart))
        radius = draws.uniform(x.new_empty(len(x), 1), index, f"{tag}/radius", restart=restart).flatten()
        return direction * column(self.threat.eps * radius ** (1 / max(1, x[0].numel())), x)

    def _pace(self, size: Tensor) -> Tensor:
        return size

    def _round(self, offset: Tensor, reach: float) -> Tensor:
        nearest = offset.round()
        fits = torch.linalg.vector_norm(nearest.flatten(1), dim=1) <= reach
        return torch.where(column(fits, offset), nearest, offset.trunc())


def column(values: Tensor, like: Tensor) -> Tensor:
    """[B] shaped to broadcast over like [B, *shape]."""
    return values.view(-1, *[1] * (like.dim() - 1))


def _direction(grad: Tensor) -> Tensor:
    """grad / ‖grad‖₂ per example, 0 where grad is 0. Scaled by the largest entry first: squares of the tiny gradients
    of a confident model would underflow and the attack would stand still."""
    flat = grad.flatten(1)
    flat = flat / flat.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(flat.dtype).tiny)
    norm: Tensor = torch.linalg.vector_norm(flat, dim=1, keepdim=True)
    return (flat / norm.clamp_min(0.5)).view_as(grad)


def ball(threat: ThreatModel) -> Ball:
    """The geometry of a threat model."""
    return {"linf": LinfBall, "l2": L2Ball}[threat.norm](threat)
