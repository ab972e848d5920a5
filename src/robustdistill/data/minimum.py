"""Whether every class has enough examples in every split; if not, why, and what would help."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from robustdistill.data.faults import Faults
from robustdistill.data.raw import Raw
from robustdistill.data.splits import MIN_EXAMPLES, REASONS, Division
from robustdistill.errors import BadInput
from robustdistill.inputs import shown

Counts = Mapping[str, Sequence[int]]  # {split: examples of each class}


def check_counts(raw: Raw, keys: NDArray[np.void], division: Division, counts: Counts, where: str) -> None:
    """counts: as they are used, within data.limit. where: the raw data, as shown in errors.

    Raises BadInput that names every class with fewer than MIN_EXAMPLES in a split, and first what made them few.
    """
    splits = ("train", "val") if raw.has_test else ("train", "val", "test")
    images = raw.counts(np.concatenate([division.positions[name] for name in splits]))
    least = MIN_EXAMPLES * len(splits)
    few = [label for label, count in enumerate(images) if count < least]
    faults = Faults(where)
    for cause, fix in (
        *_contradictions(raw, keys, division, few),
        *_few(raw, division, images, few, splits),
        *_limited(raw, images, least, counts),
        *_unjudged(raw, counts),
    ):
        faults.add(BadInput(cause, where=where, fix=fix))
    faults.raise_any()


def _few(
    raw: Raw, division: Division, images: Sequence[int], few: Sequence[int], splits: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """Of each class that cannot fill the `splits` which are taken from its images: cause and fix."""
    least = MIN_EXAMPLES * len(splits)
    beside, place = (" beside the test set", " to train") if raw.has_test else ("", "")
    why = f"fewer than {least} ({MIN_EXAMPLES} each for {', '.join(splits[:-1])} and {splits[-1]})"
    found = raw.counts(np.flatnonzero(~raw.official))
    lost = {reason: raw.counts(positions) for reason, positions in division.lost.items()}
    for label in few:
        left_out = ", ".join(REASONS[reason].format(row[label]) for reason, row in lost.items() if row[label])
        rest = f"; {found[label]} were found: {left_out}" if left_out else ""
        cause = f"{_class(raw, label)} has {images[label]} different images{beside}, {why}{rest}"
        yield cause, _add(raw, few, least - images[label], place)


def _limited(raw: Raw, images: Sequence[int], least: int, counts: Counts) -> Iterator[tuple[str, str]]:
    """Of each class that had enough in train (`divide` has seen to it) until data.limit: cause and fix."""
    for label, count in enumerate(counts["train"]):
        if images[label] >= least and count < MIN_EXAMPLES:
            cause = f"{_class(raw, label)} has {count} examples in train within data.limit, fewer than {MIN_EXAMPLES}"
            yield cause, "raise data.limit in params.yaml, or set it to null"


def _unjudged(raw: Raw, counts: Counts) -> Iterator[tuple[str, str]]:
    """Of each class with too few examples in the test set that came with the data: cause and fix."""
    few = [label for label, count in enumerate(counts["test"]) if raw.has_test and count < MIN_EXAMPLES]
    for label in few:
        cause = f"{_class(raw, label)} has {counts['test'][label]} examples in the test set, fewer than {MIN_EXAMPLES}"
        fix = _add(raw, few, MIN_EXAMPLES - counts["test"][label], " to test")
        yield cause, f"{fix}, or give no test set, and a share of all images becomes one (data.test)"


def _class(raw: Raw, label: int) -> str:
    return f"class {shown(raw.classes[label])!r}"


def _add(raw: Raw, few: Sequence[int], missing: int, place: str) -> str:
    """The same words for all classes at fault, so that they are told once; the causes state the numbers."""
    if len(few) > 1:
        return f"add images of each of these classes{place}"
    return f"add {missing} or more images of {_class(raw, few[0])}{place}"


def _contradictions(
    raw: Raw, keys: NDArray[np.void], division: Division, few: Sequence[int]
) -> Iterator[tuple[str, str]]:
    """Cause and fix, if images with two labels or more are what a class lacks."""
    lost = division.lost["contradictory"]
    short = lost[np.isin(raw.labels[lost], few)]
    if len(short):
        first = int(short[0])
        same = lost[keys["id"][lost] == keys["id"][first]]
        other = int(same[raw.labels[same] != raw.labels[first]][0])
        cause = (
            f"{len(lost)} images have contradictory labels and are left out: equal images lie in different classes, "
            f"for example {raw.place(first)} and {raw.place(other)}"
        )
        yield cause, "keep each image in one class only"
