"""What the judge found around the robust accuracy, as rows of a table; see judge.around and judge.bounds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from robustdistill.release.material import Material

Row = tuple[str, str, str]  # what, the figure, the number of examples behind it


def beside(material: Material) -> list[tuple[str, list[Row]]]:
    """(name of the model, its rows), for each judged model whose scorecard holds any."""
    found = [(model.name, list(rows(model.card))) for model in material.judged if model.card]
    return [(name, table) for name, table in found if table]


def rows(card: Mapping[str, Any]) -> Iterator[Row]:
    """Of one scorecard; older ones have none."""
    if bounds := card.get("bounds"):
        if bounds["certified"] is None:
            yield "certified by interval bounds", f"none: {bounds['reason']}", "–"
        else:
            yield "certified by interval bounds", _pct(bounds["certified"]), str(bounds["n"])
    around = card.get("around", {})
    if block := around.get("calibration"):
        for name in ("clean", "attacked"):
            figures = f"{block[name]['ece']:.3f}, {block[name]['brier']:.3f}"
            yield f"calibration error, Brier score ({name})", figures, str(block["n"])
    if block := around.get("corruptions"):
        yield "accuracy on 8 corruptions, mean", _pct(block["mean"]), str(block["n"])
        for kind, shares in block["kinds"].items():
            yield f"· {kind.replace('_', ' ')}, severity 1 to 5", " ".join(map(_pct, shares)), str(block["n"])
    if block := around.get("threats"):
        for row in block["rows"]:
            what = f"under {row['norm']} eps {row['eps']:.3g} ({block['attack']})"
            yield what, _pct(row["accuracy"]), str(block["n"])
    if block := around.get("nearest"):
        median = "–" if block["median"] is None else f"{block['median']:.3g}"
        yield f"median distance to a wrong input ({block['norm']}, FAB)", median, str(block["n"])


def _pct(share: float) -> str:
    return f"{100 * share:.1f} %"
