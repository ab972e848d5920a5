"""What changed from one version of the data to the next: counts, examples, duplicates, and simple statistics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustdistill.data.prepared import SPLITS, Prepared
from robustdistill.data.splits import REASONS
from robustdistill.inputs import shown

BINS = 32  # of the brightness histogram
NOTABLE = 0.1  # total variation from which a shift of brightness is called notable
CHUNK = 4096

Counts = Mapping[str, Mapping[str, int]]  # {class: {split: examples}}


@dataclass(frozen=True)
class Changes:
    """added, removed, relabelled: examples by content, over all splits. removed_from_train: {reason: examples}.

    drift: mean and standard deviation per channel before and after, and the total variation distance in [0, 1]
    between the histograms of the images' mean brightness in train. None where there was nothing before.
    """

    counts_before: Counts
    counts_after: Counts
    added: int
    removed: int
    relabelled: int
    removed_from_train: Mapping[str, int]
    shape_before: list[int] | None
    shape_after: list[int]
    drift: Mapping[str, Any] | None = field(default=None)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def markdown(self) -> str:
        return "\n".join(_lines(self)) + "\n"


def compare(old: Prepared | None, new: Prepared) -> Changes:
    """From `old` (None: there was nothing) to `new`."""
    before, after = (_labels(old) if old else {}), _labels(new)
    return Changes(
        counts_before=_counts(old) if old else {},
        counts_after=_counts(new),
        added=len(after.keys() - before.keys()),
        removed=len(before.keys() - after.keys()),
        relabelled=sum(before[id] != after[id] for id in before.keys() & after.keys()),
        removed_from_train=dict(new.manifest.removed),
        shape_before=list(old.manifest.shape) if old else None,
        shape_after=list(new.manifest.shape),
        drift=_drift(old, new) if old else None,
    )


def _labels(prepared: Prepared) -> dict[int, str]:
    classes = prepared.manifest.classes
    splits = (prepared.split(name) for name in SPLITS)
    return {id: classes[y] for split in splits for id, y in zip(split.id.tolist(), split.y.tolist(), strict=True)}


def _counts(prepared: Prepared) -> dict[str, dict[str, int]]:
    manifest = prepared.manifest
    return {
        name: {split: manifest.counts[split][label] for split in SPLITS} for label, name in enumerate(manifest.classes)
    }


def _drift(old: Prepared, new: Prepared) -> dict[str, Any]:
    distance = 0.5 * float(np.abs(_brightness(old) - _brightness(new)).sum())
    statistics = {
        f"{name}_{when}": list(getattr(prepared.manifest, name))
        for when, prepared in (("before", old), ("after", new))
        for name in ("mean", "std")
    }
    return {**statistics, "brightness_distance": round(distance, 6)}


def _brightness(prepared: Prepared) -> NDArray[np.float64]:
    """Histogram [BINS], summing to 1, of the mean over all pixels of each training image."""
    split = prepared.split("train")
    counts: NDArray[np.float64] = np.zeros(BINS)
    axes = tuple(range(1, split.x.ndim))
    for start in range(0, len(split), CHUNK):
        means = split.x[start : start + CHUNK].mean(axis=axes)
        counts += np.histogram(means, bins=BINS, range=(0, 256))[0]
    share: NDArray[np.float64] = counts / counts.sum()
    return share


def _lines(changes: Changes) -> Iterator[str]:
    yield "| class | " + " | ".join(SPLITS) + " |"
    yield "|---|" + "---:|" * len(SPLITS)
    for name in [*changes.counts_after, *(gone for gone in changes.counts_before if gone not in changes.counts_after)]:
        before, after = changes.counts_before.get(name), changes.counts_after.get(name)
        cells = (_cell(before[split] if before else None, after[split] if after else 0) for split in SPLITS)
        yield f"| {_plain(name)} | {' | '.join(cells)} |"
    yield ""
    yield f"{changes.added} examples added, {changes.removed} removed, {changes.relabelled} with another label."
    yield (
        "Left out of train: " + ", ".join(REASONS[key].format(n) for key, n in changes.removed_from_train.items()) + "."
    )
    if changes.shape_before not in (None, changes.shape_after):
        yield f"The shape changed from {changes.shape_before} to {changes.shape_after}."
    yield from _drift_lines(changes.drift)


def _drift_lines(drift: Mapping[str, Any] | None) -> Iterator[str]:
    if drift is None:
        return
    for name, word in (("mean", "Mean"), ("std", "Deviation")):
        before, after = (", ".join(f"{v:.4f}" for v in drift[f"{name}_{when}"]) for when in ("before", "after"))
        yield f"{word} per channel: {before} before, {after} after."
    distance = drift["brightness_distance"]
    verdict = "notable" if distance >= NOTABLE else "small"
    yield f"Shift of brightness: {distance:.3f} of 1 ({verdict})."


def _cell(before: int | None, after: int) -> str:
    if before is None or before == after:
        return str(after)
    return f"{after} ({after - before:+d})"


def _plain(name: str) -> str:
    """A class name that cannot break the table."""
    return shown(name).replace("|", "\\|")
