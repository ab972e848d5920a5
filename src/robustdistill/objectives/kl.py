"""The project's one divergence, under the name objectives use. It lives beside the attacks, which maximise it."""

from __future__ import annotations

from robustdistill.attacks.kl import kl

__all__ = ["kl"]
