"""What the judge found around the robust accuracy, as rows of a table; see judge.around, bounds and agreement."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from markupsafe import Markup

from robustdistill.gate.scorecard import REPLAYED
from robustdistill.release.material import Material, Model
from robustdistill.release.plots import Series, line_chart

Row = tuple[str, str, str]  # what, the figure, the number of examples behind it


def beside(material: Material) -> list[tuple[str, list[Row]]]:
    """(name of the model, its rows), for each judged model whose scorecard holds any."""
    found = [(model.name, list(rows(model.card))) for model in material.judged if model.card]
    return [(name, table) for name, table in found if table]


def corrupted(material: Material) -> tuple[Markup, list[Model]]:
    """The mean accuracy over the kinds of corruption against their severity, one line a model; 0 is the clean
    accuracy. Empty where no scorecard holds any."""
    found = [model for model in material.judged if model.card and model.card.get("around", {}).get("corruptions")]
    lines = []
    for model in found:
        card = model.card or {}
        kinds = list(card["around"]["corruptions"]["kinds"].values())
        means = [sum(shares) / len(kinds) for shares in zip(*kinds, strict=True)]
        spots = [(float(severity), share) for severity, share in enumerate([card["clean"]["accuracy"], *means])]
        lines.append(Series(model.name, model.name, spots, marker=model.marker))
    ends = ", ".join(f"{line.name} ends at {line.points[-1][1]:.0%}" for line in lines)
    chart = line_chart(lines, title=f"accuracy against severity of corruption: {ends}", x_label="severity", whole=True)
    return chart, found


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
    if block := card.get("agreement"):
        for name in ("clean", "attacked"):
            kl = "–" if block[name]["kl"] is None else f"{block[name]['kl']:.3f}"
            figures = f"{_pct(block[name]['same'])}, {kl}"
            yield f"same class as the teacher, KL from it ({name})", figures, str(block["n"])


def weakest(card: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The tile of the class with the lowest robust accuracy; none for a scorecard without it."""
    found = card.get("worst_class")
    if not found:
        return []
    robust, clean = found["robust"], found["clean"]
    remark = f"{robust['class']}, {robust['n']} examples; clean: {_pct(clean['accuracy'])} for {clean['class']}"
    return [("worst class", _pct(robust["accuracy"]), remark)]


def line(card: Mapping[str, Any]) -> str:
    """The same in short, for a terminal; "" for a scorecard that holds none of it."""
    return " · ".join(_short(card))


def _short(card: Mapping[str, Any]) -> Iterator[str]:
    around = card.get("around", {})
    if block := around.get("corruptions"):
        yield f"corruptions {_pct(block['mean'])}"
    if block := around.get("calibration"):
        yield f"calibration error {block['clean']['ece']:.3f}, attacked {block['attacked']['ece']:.3f}"
    if block := around.get("threats"):
        yield ", ".join(f"{row['norm']} {row['eps']:.3g}: {_pct(row['accuracy'])}" for row in block["rows"])
    if (block := around.get("nearest")) and block["median"] is not None:
        yield f"median distance to a wrong input {block['median']:.3g}"
    if found := [row for row in card.get("attacks", []) if row["name"].startswith(REPLAYED)]:
        shares = [f"{row['name'].removeprefix(REPLAYED)} {_pct(row['accuracy'])}" for row in found]
        yield f"transfer from {', '.join(shares)}"
    if block := card.get("agreement"):
        yield f"as the teacher {_pct(block['clean']['same'])}, attacked {_pct(block['attacked']['same'])}"


def _pct(share: float) -> str:
    return f"{100 * share:.1f} %"
