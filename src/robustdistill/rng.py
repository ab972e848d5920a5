"""The only randomness of the project: a pure function of (seed, purpose, epoch, example, restart).

Nothing here has state, so a run resumed at any step draws what the uninterrupted run would have drawn, and a draw
does not depend on batch size, order or worker. Bits: two rounds of a 32-bit finaliser (xor-shift-multiply) over a
counter, keyed by BLAKE2b; good enough for starting points and augmentation, not for cryptography.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

_MASK = 0xFFFFFFFF


def derive(*parts: int | str) -> int:
    """A 63-bit key from any parts; equal parts give the equal key on every machine."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def _mix(h: Tensor) -> Tensor:
    """A 32-bit finaliser on int64 tensors that hold values below 2^32."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        h = ((h ^ (h >> shift)) * factor) & _MASK
    return h ^ (h >> 16)


@dataclass(frozen=True)
class Draws:
    """Random numbers by name. `index` [B] int64 identifies each example (its content id), `tag` the purpose."""

    seed: int
    epoch: int = 0

    def at(self, epoch: int) -> Draws:
        return replace(self, epoch=epoch)

    def fold(self, purpose: str) -> Draws:
        """An independent family, for one more user of randomness."""
        return Draws(derive(self.seed, purpose), self.epoch)

    def _bits(self, index: Tensor, count: int, tag: str, restart: int) -> Tensor:
        key = derive(self.seed, tag, self.epoch, restart)
        index = index.to(torch.int64)
        row = _mix(_mix((index & _MASK) ^ (key & _MASK)) ^ ((index >> 32) & _MASK) ^ (key >> 32))
        column = torch.arange(count, device=index.device, dtype=torch.int64)
        return _mix(_mix((row[:, None] + column * 0x9E3779B9) & _MASK) ^ row[:, None])

    def uniform(self, like: Tensor, index: Tensor, tag: str, *, restart: int = 0) -> Tensor:
        """U[0, 1) of the shape, type and device of `like` [B, ...]."""
        bits = self._bits(index, math.prod(like.shape[1:]), tag, restart)
        return ((bits >> 8).to(torch.float32) / 2**24).view(like.shape).to(like.dtype)

    def normal(self, like: Tensor, index: Tensor, tag: str, *, restart: int = 0) -> Tensor:
        """N(0, 1) of the shape, type and device of `like` [B, ...] (Box-Muller)."""
        u = self.uniform(like, index, f"{tag}/radius", restart=restart).double()
        v = self.uniform(like, index, f"{tag}/angle", restart=restart).double()
        radius = torch.sqrt(-2.0 * torch.log1p(-u))
        return (radius * torch.cos(2 * math.pi * v)).to(like.dtype)

    def permutation(self, n: int, tag: str) -> np.ndarray:
        """A permutation of range(n), int64: the order of an epoch."""
        return np.random.Generator(np.random.Philox(derive(self.seed, tag, self.epoch))).permutation(n)

    def choice(self, n: int, k: int, tag: str) -> np.ndarray:
        """k distinct positions of range(n), ascending: a sample of a dataset."""
        return np.sort(self.permutation(n, tag)[:k])


@contextmanager
def seeded(*parts: int | str) -> Iterator[None]:
    """torch's global generator seeded inside, restored outside: for initial weights and for AutoAttack."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(derive(*parts))
        yield


def seed_step(draws: Draws, step: int) -> None:
    """Seeds torch's global generator for one training step (dropout), so that a resumed run repeats it."""
    torch.manual_seed(derive(draws.seed, "step", step))
