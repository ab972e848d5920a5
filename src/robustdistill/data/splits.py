"""Which example goes where: a function of its content alone, so that it never changes as data grow.

An example's key is a 128-bit hash of its shape and pixels: 64 bits name it (its content id), 32 decide about test,
32 about validation. A renamed, re-encoded or repeated image has the same key and so stays in the same split.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

KEY = np.dtype([("id", "<i8"), ("test", "<u4"), ("val", "<u4")])


def content_key(pixels: NDArray[Any]) -> bytes:
    """16 bytes that name the content of one image [C, H, W], on every machine."""
    head = ",".join(str(edge) for edge in pixels.shape).encode()
    return hashlib.blake2b(head + b":" + np.ascontiguousarray(pixels).tobytes(), digest_size=16).digest()


def unpack(keys: bytes) -> NDArray[np.void]:
    """Concatenated content keys → records [N] of KEY; ids have 63 bits."""
    records = np.frombuffer(keys, dtype=KEY).copy()
    records["id"] &= np.int64(2**63 - 1)
    return records


def chance(part: NDArray[np.uint32]) -> NDArray[np.float64]:
    """32 bits of a key as a number in [0, 1)."""
    return part / 2.0**32


@dataclass(frozen=True)
class Division:
    """Positions of the raw examples in each split, and how many left train for which reason."""

    positions: dict[str, NDArray[np.int64]]
    removed: dict[str, int]


def divide(
    keys: NDArray[np.void], labels: NDArray[np.int64], official: NDArray[np.bool_] | None, *, val: float, test: float
) -> Division:
    """Splits N examples. official: bool [N], the test set that came with the data and stays whole; None: take a share.

    What is also in the official test set leaves train. Of equal images one is kept; if their labels contradict each
    other, none is. val: share of what is not test.
    """
    pool = np.arange(len(keys)) if official is None else np.flatnonzero(~official)
    pool, removed = _without_test(pool, keys, official)
    pool, contradictory = _without_contradictions(pool, keys, labels)
    kept = pool[np.unique(keys["id"][pool], return_index=True)[1]]
    removed |= {"contradictory": contradictory, "duplicate": len(pool) - len(kept)}
    if official is None:
        is_test = chance(keys["test"][kept]) < test
        positions = {"test": kept[is_test]}
        kept = kept[~is_test]
    else:
        positions = {"test": np.flatnonzero(official)}
    is_val = chance(keys["val"][kept]) < val
    positions |= {"train": kept[~is_val], "val": kept[is_val]}
    return Division({name: _ordered(part, keys, labels) for name, part in positions.items()}, removed)


def limited(
    positions: NDArray[np.int64], keys: NDArray[np.void], labels: NDArray[np.int64], limit: int | None
) -> NDArray[np.int64]:
    """At most `limit` of the positions, each class in proportion; a larger limit takes these and more."""
    if limit is None or len(positions) <= limit:
        return positions
    share = np.empty(len(positions))
    classes = labels[positions]
    for label in np.unique(classes):
        members = np.flatnonzero(classes == label)
        by_key = np.lexsort((keys["id"][positions[members]], keys["test"][positions[members]]))
        share[members[by_key]] = (np.arange(len(members)) + 0.5) / len(members)
    first = np.lexsort((keys["id"][positions], share))[:limit]
    return _ordered(positions[first], keys, labels)


def _without_test(
    pool: NDArray[np.int64], keys: NDArray[np.void], official: NDArray[np.bool_] | None
) -> tuple[NDArray[np.int64], dict[str, int]]:
    if official is None:
        return pool, {"in_test": 0}
    seen = np.isin(keys["id"][pool], keys["id"][official])
    return pool[~seen], {"in_test": int(seen.sum())}


def _without_contradictions(
    pool: NDArray[np.int64], keys: NDArray[np.void], labels: NDArray[np.int64]
) -> tuple[NDArray[np.int64], int]:
    order = np.lexsort((labels[pool], keys["id"][pool]))
    id, label = keys["id"][pool][order], labels[pool][order]
    clash = np.unique(id[1:][(id[1:] == id[:-1]) & (label[1:] != label[:-1])])
    bad = np.isin(keys["id"][pool], clash)
    return pool[~bad], int(bad.sum())


def _ordered(positions: NDArray[np.int64], keys: NDArray[np.void], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """By content id, so that the result does not depend on file names or on the order of the raw data."""
    return positions[np.lexsort((labels[positions], keys["id"][positions]))]
