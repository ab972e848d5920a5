"""Two pictures in one file: clean against robust accuracy, and the difference to the control, by size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.study.table import Line

MARKERS = {"nano": "o", "micro": "s", "tiny": "^"}
CONTROL, OTHER = "#b03a2e", "#1f618d"


def draw(rows: Sequence[Line], path: Path) -> None:
    """Equal clean accuracies stand above one another: a method is better where it is higher there."""
    from matplotlib.figure import Figure

    sizes = [size for size in MARKERS if any(row.size == size for row in rows)]
    most = max(sum(row.size == size for row in rows) for size in sizes)
    figure = Figure(figsize=(5.0 * len(sizes), 4.5 + 0.26 * most), layout="constrained")
    axes = figure.subplots(2, len(sizes), squeeze=False, height_ratios=[4.0, 0.5 + 0.26 * most])
    for column, size in enumerate(sizes):
        mine = [row for row in rows if row.size == size]
        _pairs(axes[0][column], mine, size)
        _differences(axes[1][column], [row for row in mine if row.difference is not None])
    part = path.with_name(f".{path.name}.part")
    figure.savefig(part, format="png", dpi=120)
    part.replace(path)


def _pairs(axes: Any, rows: Sequence[Line], size: str) -> None:
    for row in rows:
        color = CONTROL if row.difference is None else OTHER
        axes.scatter(row.clean * 100, row.robust * 100, marker=MARKERS[size], color=color, s=28)
        axes.annotate(row.method, (row.clean * 100, row.robust * 100), fontsize=6, xytext=(3, 3),
                      textcoords="offset points")  # fmt: skip
    axes.set(title=size, xlabel="clean accuracy, %", ylabel="robust accuracy, %")
    axes.grid(alpha=0.3)


def _differences(axes: Any, rows: Sequence[Line]) -> None:
    for place, row in enumerate(reversed(rows)):
        assert row.difference is not None and row.interval is not None
        bounds = [bound * 100 for bound in row.interval]
        axes.plot(bounds, [place, place], color=OTHER, linewidth=1.2)
        axes.plot(row.difference * 100, place, "o", color=OTHER, markersize=4)
    axes.set_yticks(range(len(rows)), [row.method for row in reversed(rows)], fontsize=7)
    axes.axvline(0, color=CONTROL, linewidth=1)
    axes.set(xlabel="robust accuracy less the control's, points (95 %)")
    axes.grid(axis="x", alpha=0.3)
