"""Charts as inline SVG: drawn from numbers alone, coloured by the page's style sheet (so that dark mode reaches them),
the same bytes for the same numbers, readable without a script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from markupsafe import Markup, escape

WIDTH = 440.0
LEFT, RIGHT, TOP, BOTTOM = 40.0, 12.0, 12.0, 30.0

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """One line. css: class that colours it, chosen by the program, never by data.

    whiskers: (lower, upper) for each point, or none. marker: see _marker. names: of each x, if not its number.
    """

    name: str
    css: str
    points: Sequence[Point]
    whiskers: Sequence[Point] = field(default=())
    dashed: bool = False
    marker: str = ""
    names: Sequence[str] = field(default=())


@dataclass(frozen=True)
class Axes:
    """Maps data to the drawing. x0 < x1, y0 < y1 in data; height in drawing units."""

    x0: float
    x1: float
    y0: float
    y1: float
    height: float

    def x(self, value: float) -> float:
        return LEFT + (value - self.x0) / (self.x1 - self.x0) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return TOP + (self.y1 - value) / (self.y1 - self.y0) * (self.height - TOP - BOTTOM)


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    percent: bool = True,
    whole: bool = False,
    mark: float | None = None,
    height: float = 260.0,
) -> Markup:
    """Lines over numbers. title: the alternative text. percent: y is a share, shown from 0 to 100 %. whole: x counts.
    mark: x of a dashed vertical line. Points that are not finite are left out."""
    series = [_finite(one) for one in series]
    points = [point for one in series for point in one.points]
    if not points:
        return Markup("")
    axes = _axes(points, percent, mark, height)
    parts = [_grid(axes, percent, whole, x_label)]
    if mark is not None:
        parts.append(_rule("mark", axes.x(mark), axes.x(mark), TOP, height - BOTTOM))
    parts += [_line(one, axes, percent) for one in series]
    return _svg(title, height, "".join(parts))


def interval_chart(difference: float, lower: float, upper: float, *, title: str) -> Markup:
    """A difference with its interval on a line through zero, in percentage points."""
    reach = max(0.01, math.ceil(max(abs(lower), abs(upper)) * 110) / 100)
    axes = Axes(-reach, reach, 0.0, 1.0, 84.0)
    low, high, zero, at = axes.x(lower), axes.x(upper), axes.x(0.0), axes.x(difference)
    body = (
        _rule("axis", axes.x(-reach), axes.x(reach), 52, 52)
        + "".join(_text(axes.x(x), 70, f"{100 * x:+.3g}") for x in (-reach, reach))
        + _rule("mark", zero, zero, 10, 52)
        + _text(zero, 70, "0 points")
        + _rule("student whisker", low, high, 32, 32)
        + f'<circle class="student dot" cx="{_n(at)}" cy="32" r="6"/>'
    )
    return _svg(title, axes.height, body)


def nice_ticks(low: float, high: float, count: int = 5, *, whole: bool = False) -> list[float]:
    """Round numbers that cover [low, high]: steps of 1, 2 or 5 times a power of ten."""
    raw = (high - low) / max(1, count)
    power = 10.0 ** math.floor(math.log10(raw)) if raw > 0 else 1.0
    step = next(step * power for step in (1, 2, 5, 10) if step * power >= raw * 0.999)
    step = max(1.0, round(step)) if whole else step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def _finite(series: Series) -> Series:
    kept = [k for k, point in enumerate(series.points) if all(math.isfinite(value) for value in point)]
    whiskers = [series.whiskers[k] for k in kept] if series.whiskers else ()
    names = [series.names[k] for k in kept] if series.names else ()
    return replace(series, points=[series.points[k] for k in kept], whiskers=whiskers, names=names)


def _axes(points: Sequence[Point], percent: bool, mark: float | None, height: float) -> Axes:
    xs = [x for x, _ in points] + ([] if mark is None else [mark])
    x0, x1 = min(xs), max(xs)
    if x0 == x1:
        x0, x1 = x0 - 0.5, x1 + 0.5
    if percent:
        return Axes(x0, x1, 0.0, 1.0, height)
    top = max(y for _, y in points)
    low = min(0.0, *(y for _, y in points))
    return Axes(x0, x1, low, top * 1.05 if top > low else low + 1.0, height)


def _grid(axes: Axes, percent: bool, whole: bool, x_label: str) -> str:
    parts = []
    right, floor, below = WIDTH - RIGHT, axes.height - BOTTOM, axes.height - 10
    for value in (0.0, 0.25, 0.5, 0.75, 1.0) if percent else nice_ticks(axes.y0, axes.y1, 3):
        text = f"{100 * value:.0f}{' %' if value == 1 else ''}" if percent else f"{value:.4g}"
        y = axes.y(value)
        parts += [_rule("grid", LEFT, right, y, y), _text(LEFT - 6, y + 4, text, anchor="end")]
    room = right - 9 * len(x_label)  # the label stands at the right end of the ticks
    ticks = ((axes.x(value), value) for value in nice_ticks(axes.x0, axes.x1, 5, whole=whole))
    parts += [_text(x, below, f"{value:g}") for x, value in ticks if x < room]
    parts.append(_rule("axis", LEFT, right, floor, floor))
    parts.append(_text(right, below, x_label, anchor="end", css="tick label"))
    return "".join(parts)


def _line(series: Series, axes: Axes, percent: bool) -> str:
    spots = [(axes.x(x), axes.y(y)) for x, y in series.points]
    path = " ".join(f"{_n(x)},{_n(y)}" for x, y in spots)
    parts = [f'<polyline class="{series.css} line{" dashed" if series.dashed else ""}" points="{path}"/>']
    for (x, _), (low, high) in zip(spots, series.whiskers, strict=False):
        parts.append(_rule(f"{series.css} whisker", x, x, axes.y(low), axes.y(high)))
    if series.marker or len(spots) == 1:
        names = series.names or [f"{x:.4g}" for x, _ in series.points]
        for (_, y), name, spot in zip(series.points, names, spots, strict=True):
            shown = f"{100 * y:.1f} %" if percent else f"{y:.4g}"
            tip = f"<title>{escape(series.name)}: {shown} at {escape(name)}</title>"
            parts.append(f'<g class="{series.css} dot">{_marker(series.marker or "circle", *spot)}{tip}</g>')
    return "".join(parts)


def _rule(css: str, x1: float, x2: float, y1: float, y2: float) -> str:
    return f'<line class="{css}" x1="{_n(x1)}" x2="{_n(x2)}" y1="{_n(y1)}" y2="{_n(y2)}"/>'


def _text(x: float, y: float, text: str, *, anchor: str = "middle", css: str = "tick") -> str:
    return f'<text class="{css}" text-anchor="{anchor}" x="{_n(x)}" y="{_n(y)}">{escape(text)}</text>'


def _marker(shape: str, x: float, y: float) -> str:
    """circle, square, triangle or diamond, so that lines differ without colour too."""
    if shape == "square":
        return f'<rect x="{_n(x - 4)}" y="{_n(y - 4)}" width="8" height="8"/>'
    if shape == "triangle":
        return f'<path d="M{_n(x)} {_n(y - 5)}l5 9h-10z"/>'
    if shape == "diamond":
        return f'<path d="M{_n(x)} {_n(y - 6)}l5.5 6l-5.5 6l-5.5 -6z"/>'
    return f'<circle cx="{_n(x)}" cy="{_n(y)}" r="4"/>'


def swatch(css: str, marker: str = "", *, dashed: bool = False) -> Markup:
    """A piece of a line, for a legend."""
    kind = " dashed" if dashed else ""
    spot = f'<g class="{css} dot">{_marker(marker, 16, 8)}</g>' if marker else ""
    line = _rule(f"{css} line{kind}", 1, 31, 8, 8)
    return Markup(f'<svg class="swatch" viewBox="0 0 32 16" aria-hidden="true">{line}{spot}</svg>')


def _svg(title: str, height: float, body: str) -> Markup:
    box = f"0 0 {_n(WIDTH)} {_n(height)}"
    return Markup(f'<svg class="chart" viewBox="{box}" role="img" aria-label="{escape(title)}">{body}</svg>')


def _n(value: float) -> str:
    """A coordinate to a tenth, without a trailing zero: short, and equal on every machine."""
    return f"{value:.1f}".removesuffix(".0")
