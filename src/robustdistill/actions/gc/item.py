"""What may go, and by which rule."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from robustdistill.errors import BadInput

SECONDS = {"h": 3600.0, "d": 86400.0, "w": 604800.0}
AGE = re.compile(r"(\d+(?:\.\d+)?)([hdw])")


@dataclass(frozen=True)
class Policy:
    """Something goes if it is older than `before` (seconds since the epoch) and not of the newest `keep_runs` runs."""

    keep_runs: int
    before: float


def seconds(age: str) -> float:
    """Of "30d", "12h", "2w". Raises BadInput."""
    found = AGE.fullmatch(age.strip())
    if found is None:
        raise BadInput(f"{age!r} is no age", where="--older-than", fix="a number with h, d or w: 12h, 30d, 8w")
    return float(found[1]) * SECONDS[found[2]]


@dataclass(frozen=True)
class Item:
    """One thing, or `count` of a kind, that may go. size: bytes; None where only a server knows. remove: may be called
    again; False if it has turned out to be needed."""

    kind: str
    name: str
    remove: Callable[[], bool | None] = field(repr=False)
    size: float | None = 0.0
    count: int = 1


@dataclass(frozen=True)
class Plan:
    """items: in the order in which they go. notes: for people."""

    items: list[Item]
    notes: list[str]

    def table(self) -> list[dict[str, Any]]:
        """By kind: how many, and bytes (None: not known)."""
        kinds: dict[str, list[Item]] = {}
        for item in self.items:
            kinds.setdefault(item.kind, []).append(item)
        return [
            {"kind": kind, "count": sum(item.count for item in found), "bytes": total(item.size for item in found)}
            for kind, found in kinds.items()
        ]


def total(sizes: Iterable[float | None]) -> float | None:
    known = [*sizes]
    return None if None in known else sum(size for size in known if size is not None)
