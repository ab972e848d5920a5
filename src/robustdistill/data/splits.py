"""Which example goes where: a function of its content, so that it does not change as data grow.

An example's key is a 128-bit hash of its shape and pixels: 64 bits name it (its content id), 32 decide about test,
32 about validation. A renamed, re-encoded or repeated image has the same key and so stays in the same split. Only where
a small class would be left with too few in a split does the border lie elsewhere, as far as that takes (`_taken`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

KEY = np.dtype([("id", "<i8"), ("test", "<u4"), ("val", "<u4")])
MIN_EXAMPLES = 10  # of each class in each split; fewer can neither be learnt nor judged
REASONS = {
    "in_test": "{} also in the test set",
    "contradictory": "{} with contradictory labels",
    "duplicate": "{} duplicates",
}


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
    """Positions of the raw examples in each split, and of those that left train for each of REASONS."""

    positions: dict[str, NDArray[np.int64]]
    lost: dict[str, NDArray[np.int64]]

    @property
    def removed(self) -> dict[str, int]:
        """{reason: examples}."""
        return {reason: len(positions) for reason, positions in self.lost.items()}


def divide(
    keys: NDArray[np.void], labels: NDArray[np.int64], official: NDArray[np.bool_] | None, *, val: float, test: float
) -> Division:
    """Splits N examples. official: bool [N], the test set that came with the data and stays whole; None: take a share.

    What is also in the official test set leaves train. Of equal images one is kept; if their labels contradict each
    other, none is. val: share of what is not test. A class with MIN_EXAMPLES for every split gets them in every split.
    """
    pool = np.arange(len(keys)) if official is None else np.flatnonzero(~official)
    lost = {}
    pool, lost["in_test"] = _parted(pool, _also_in_test(pool, keys, official))
    pool, lost["contradictory"] = _parted(pool, _contradictory(pool, keys, labels))
    pool, lost["duplicate"] = _parted(pool, _repeated(pool, keys))
    if official is None:
        pool, test_set = _parted(pool, _taken(pool, keys, labels, ("test", test), leave=2 * MIN_EXAMPLES))
    else:
        test_set = np.flatnonzero(official)
    train, val_set = _parted(pool, _taken(pool, keys, labels, ("val", val), leave=MIN_EXAMPLES))
    positions = {"train": train, "val": val_set, "test": test_set}
    return Division({name: _ordered(part, keys, labels) for name, part in positions.items()}, lost)


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


def _taken(
    pool: NDArray[np.int64], keys: NDArray[np.void], labels: NDArray[np.int64], by: tuple[str, float], leave: int
) -> NDArray[np.bool_]:
    """Which of the pool go into the split of by = (part of the key, share): those whose chance is below the share.

    In a class where that takes fewer than MIN_EXAMPLES, or leaves fewer than `leave`, the border moves until it does
    not, if there are enough for both: those nearest to it change sides.
    """
    name, share = by
    label, part = labels[pool], keys[name][pool]
    sizes = np.bincount(label)
    order = np.lexsort((keys["id"][pool], part, label))
    rank = np.empty(len(pool), dtype=np.int64)  # of each within its class
    rank[order] = np.arange(len(pool)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    below = np.bincount(label[chance(part) < share], minlength=len(sizes))
    moved = np.clip(below, MIN_EXAMPLES, sizes - leave)
    return rank < np.where(sizes >= MIN_EXAMPLES + leave, moved, below)[label]


def _parted(pool: NDArray[np.int64], out: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return pool[~out], pool[out]


def _also_in_test(
    pool: NDArray[np.int64], keys: NDArray[np.void], official: NDArray[np.bool_] | None
) -> NDArray[np.bool_]:
    return np.isin(keys["id"][pool], [] if official is None else keys["id"][official])


def _contradictory(pool: NDArray[np.int64], keys: NDArray[np.void], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    order = np.lexsort((labels[pool], keys["id"][pool]))
    id, label = keys["id"][pool][order], labels[pool][order]
    clash = np.unique(id[1:][(id[1:] == id[:-1]) & (label[1:] != label[:-1])])
    return np.isin(keys["id"][pool], clash)


def _repeated(pool: NDArray[np.int64], keys: NDArray[np.void]) -> NDArray[np.bool_]:
    repeated = np.ones(len(pool), dtype=np.bool_)
    repeated[np.unique(keys["id"][pool], return_index=True)[1]] = False
    return repeated


def _ordered(positions: NDArray[np.int64], keys: NDArray[np.void], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """By content id, so that the result does not depend on file names or on the order of the raw data."""
    return positions[np.lexsort((labels[positions], keys["id"][positions]))]
