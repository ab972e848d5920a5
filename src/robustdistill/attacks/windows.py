"""The proposals of the Square attack (Andriushchenko et al. 2020, algorithms 2 and 3), one class for each norm.

n examples x, x_adv [n, C, H, W]; u: draws from U[0, 1), as many in each example as the class says.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import cache

import torch
from torch import Tensor

from robustdistill.attacks.ball import Ball, L2Ball

TILES = 5  # along the shorter edge of the first L2 pattern
SMALLEST = 3  # edge of an L2 window: below, its two halves are no pattern


class Pattern(ABC):
    """Where a search begins, and what it tries next."""

    def __init__(self, ball: Ball) -> None:
        self.ball, self.eps = ball, ball.threat.eps

    @abstractmethod
    def first_draws(self, x: Tensor) -> tuple[int, ...]:
        """Shape of one example's draws for `first`."""

    @abstractmethod
    def draws(self, x: Tensor) -> int:
        """Number of one example's draws for `proposal`."""

    @abstractmethod
    def first(self, x: Tensor, u: Tensor) -> Tensor:
        """The first point."""

    @abstractmethod
    def proposal(self, x: Tensor, x_adv: Tensor, u: Tensor, share: float) -> Tensor:
        """x_adv changed in windows that cover `share` of the image."""


class LinfPattern(Pattern):
    """Stripes of ±eps at first, then windows that are set to +eps or −eps in each channel."""

    def first_draws(self, x: Tensor) -> tuple[int, ...]:
        return x.shape[1], 1, x.shape[3]

    def draws(self, x: Tensor) -> int:
        return 2 + x.shape[1]

    def first(self, x: Tensor, u: Tensor) -> Tensor:
        return self.ball.project(x + self.eps * _signs(u), x)

    def proposal(self, x: Tensor, x_adv: Tensor, u: Tensor, share: float) -> Tensor:
        edge = _edge(share, x)
        window = _window(x, u[:, :2], edge)
        delta = self.eps * _signs(u[:, 2:])[:, :, None, None]
        tried = torch.where(window, self.ball.project(x + delta, x), x_adv)
        # A window that holds these values already would waste the query: the other sign then.
        idle = (tried == x_adv).flatten(1).all(dim=1)
        if bool(idle.any()):
            other = torch.where(window[idle], self.ball.project(x[idle] - delta[idle], x[idle]), x_adv[idle])
            tried[idle] = other
        return tried


class L2Pattern(Pattern):
    """Tiles of pyramids at first, then one window is given pyramids and the budget of another, which is emptied."""

    def first_draws(self, x: Tensor) -> tuple[int, ...]:
        return x.shape[1] + 1, *_tiles(x)[:2]

    def draws(self, x: Tensor) -> int:
        return 5 + x.shape[1]

    def first(self, x: Tensor, u: Tensor) -> Tensor:
        rows, columns, edge = _tiles(x)
        height, width = x.shape[2:]
        signs = _signs(u[:, 1:])
        delta = torch.zeros_like(x)
        for row in range(rows):
            for column in range(columns):
                top, left = (height - rows * edge) // 2 + row * edge, (width - columns * edge) // 2 + column * edge
                tile = _pyramids(edge).to(x)[(u[:, 0, row, column] < 0.5).long()]
                delta[:, :, top : top + edge, left : left + edge] = signs[:, :, row, column, None, None] * tile[:, None]
        delta *= self.eps / delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        return self.ball.project(x + delta, x)

    def proposal(self, x: Tensor, x_adv: Tensor, u: Tensor, share: float) -> Tensor:
        edge = _odd(max(SMALLEST, _edge(share, x)), min(x.shape[2:]))
        one, two = _window(x, u[:, :2], edge), _window(x, u[:, 2:4], edge)
        delta = x_adv - x
        unused = (self.eps**2 - delta.square().sum(dim=(1, 2, 3), keepdim=True)).clamp_min(0)
        budget = ((delta * (one | two)).square().sum(dim=(2, 3), keepdim=True) + unused / x.shape[1]).sqrt()
        new = _signs(u[:, 5:])[:, :, None, None] * _placed(x, u[:, :2], u[:, 4] < 0.5, edge) + _unit(delta * one)
        delta = torch.where(one, budget * _unit(new), delta.masked_fill(two & ~one, 0.0))
        return self.ball.project(x + delta, x)


def pattern(ball: Ball) -> Pattern:
    """The proposals of a norm."""
    return L2Pattern(ball) if isinstance(ball, L2Ball) else LinfPattern(ball)


def _signs(u: Tensor) -> Tensor:
    return torch.where(u < 0.5, -1.0, 1.0).to(u.dtype)


def _unit(values: Tensor) -> Tensor:
    """Of length 1 in each channel, 0 where it is 0."""
    return values / values.square().sum(dim=(2, 3), keepdim=True).sqrt().clamp_min(1e-12)


def _edge(share: float, x: Tensor) -> int:
    height, width = x.shape[2:]
    return min(max(1, round(math.sqrt(share * height * width))), height, width)


def _odd(edge: int, most: int) -> int:
    edge += edge % 2 == 0
    return edge if edge <= most else most


def _corner(x: Tensor, u: Tensor, edge: int) -> tuple[Tensor, Tensor]:
    """Pixel numbers relative to the window's corner: [n, H] and [n, W]. u [n, 2]: where the corner is."""
    height, width = x.shape[2:]
    top, left = (u[:, 0] * (height - edge + 1)).long(), (u[:, 1] * (width - edge + 1)).long()
    rows, columns = (torch.arange(size, device=x.device) for size in (height, width))
    return rows - top[:, None], columns - left[:, None]


def _window(x: Tensor, u: Tensor, edge: int) -> Tensor:
    """[n, 1, H, W] bool: inside the window."""
    rows, columns = (((at >= 0) & (at < edge)) for at in _corner(x, u, edge))
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def _placed(x: Tensor, u: Tensor, turned: Tensor, edge: int) -> Tensor:
    """[n, 1, H, W]: the pyramids in the window, 0 elsewhere."""
    rows, columns = (at.clamp(0, edge - 1) for at in _corner(x, u, edge))
    values = _pyramids(edge).to(x)[turned.long()[:, None, None], rows[:, :, None], columns[:, None, :]]
    return values[:, None] * _window(x, u, edge)


def _tiles(x: Tensor) -> tuple[int, int, int]:
    """Rows and columns of the first pattern, and the edge of a tile."""
    height, width = x.shape[2:]
    edge = max(1, min(height, width) // TILES)
    return height // edge, width // edge, edge


@cache
def _pyramids(edge: int) -> Tensor:
    """[2, edge, edge]: a rising and a falling half side by side, of length 1 together; and the same turned."""
    half = edge // 2
    both = torch.cat([_pyramid(edge, half), -_pyramid(edge, edge - half)], dim=1)
    both = both / both.norm()
    return torch.stack([both, both.T])


def _pyramid(height: int, width: int) -> Tensor:
    """η_{r,s} = Σ_{k=0}^{M} (n + 1 − k)⁻² with n = ⌊height / 2⌋ and M = n − max(|r − ⌊height / 2⌋ − 1|,
    |s − ⌊width / 2⌋ − 1|), r and s counted from 1 (section 3.4 of the paper)."""
    n = height // 2
    sums = torch.cumsum(torch.tensor([1.0 / (n + 1 - k) ** 2 for k in range(n + 1)]), dim=0)
    off = torch.maximum(
        (torch.arange(height) - height // 2).abs()[:, None], (torch.arange(width) - width // 2).abs()[None]
    )
    return torch.where(off <= n, sums[(n - off).clamp_min(0)], 0.0)
