"""The report of a run: one HTML file that needs nothing else, with the verdict first.

It is written for the person who has to decide or to understand a refusal, so it renders whatever exists: a section
whose files are missing or damaged says so in its place. The same artifacts give the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from robustdistill.errors import RobustDistillError
from robustdistill.gate.scorecard import REPLAYED
from robustdistill.gate.statistics import wilson
from robustdistill.inputs import shown
from robustdistill.release.around import beside, corrupted, weakest
from robustdistill.release.material import Material, Model, gather
from robustdistill.release.pictures import Picture, Setting, gallery
from robustdistill.release.plots import Series, interval_chart, line_chart, swatch
from robustdistill.threat import ThreatModel, spell

MOST_CLASSES = 30  # rows of the table of classes; with more, the weakest
T = TypeVar("T")

HEADLINES = {
    ("student", "pass"): "Passed: the student may be promoted",
    ("student", "fail"): "Refused: the student is not promoted",
    ("student", "challenger"): "Passed: the student waits for a person to promote it",
    ("student", "unhealthy"): "Not decided: the evaluation cannot be trusted",
    ("teacher", "pass"): "The teacher qualified; there is no student yet",
    ("teacher", "fail"): "Refused: the teacher is not worth distilling",
    ("teacher", "unhealthy"): "Not decided: the teacher's evaluation cannot be trusted",
}
SETTLED = {
    "promoted": "Promoted",
    "unchanged": "Passed, nothing to move",
    "challenger": "Passed, waits for a person",
    "waiting": "Passed, waits for the promoter",
}
TONES = {"pass": "good", "challenger": "good", "fail": "bad", "unhealthy": "warn"}
ICONS = {"pass": "✓", "fail": "✕", "waived": "~", "informs": "i", "not_applicable": "–"}
STATUS = {
    "pass": "holds", "fail": "fails", "waived": "waived", "informs": "does not decide", "not_applicable": "not asked",
}  # fmt: skip


@dataclass(frozen=True)
class Settled:
    """What was done about a verdict. outcome: as in the run's summary. sentence: how it came to that, and what is in
    use now. place: the version that it is about, with its alias, "" if none."""

    outcome: str
    sentence: str
    place: str = ""


@dataclass(frozen=True)
class Section:
    """What a part of the page shows, or why it cannot."""

    content: Any
    note: str = ""


def render(
    artifacts: Path,
    *,
    title: str,
    verdict: Mapping[str, Any] | None,
    facts: Mapping[str, str],
    settled: Settled | None = None,
) -> str:
    """The page as text. artifacts: the folder of stage outputs. verdict: `Verdict.to_json()`, of the student or of the
    teacher, or None if nothing was decided. facts: what to show of data, commit and reproduction, in that order; values
    with a line break, and the one named "reproduce", are shown as commands. settled: what came of the verdict, None if
    nothing was done about it."""
    material = gather(artifacts)
    threat = _threat(material)
    names = _attack_names(material.judged)
    return environment().get_template("report.html.j2").render(
        title=title,
        material=material,
        hero=_hero(verdict, settled),
        tiles=_tiles(material),
        rules=verdict["rules"] if verdict else [],
        gain=section(lambda: _gain(verdict)),
        attacks=[name for name in names if not name.startswith(REPLAYED)],
        alone=[name for name in names if name.startswith(REPLAYED)],  # in words: a column of "not run" tells nothing
        curve=section(lambda: curve(material, threat)),
        training=[(model, *_training(model)) for model in material.models.values() if model.history],
        untrained=[name for name, model in material.models.items() if not model.history],
        classes=section(lambda: classes(material)),
        around=section(lambda: beside(material)),
        corrupted=section(lambda: corrupted(material)),
        galleries=[section(partial(_gallery, material, *choice)) for choice in _GALLERIES],
        threat=threat,
        protocol=protocol(material),
        health=_health(material),
        facts=list(facts.items()),
        policy=verdict["policy_sha256"] if verdict else "",
    )  # fmt: skip


_GALLERIES = (("initial", 4, 0), ("student", 2, 2))


def environment() -> Environment:
    """Templates of this package; everything that is put in is escaped and made printable."""
    environment = Environment(
        loader=PackageLoader("robustdistill.release"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else shown(str(value)) if value is not None else "–",
    )
    environment.filters.update(pct=pct, count=_count)
    environment.globals.update(icons=ICONS, status=STATUS, swatch=swatch)
    return environment


def section(build: Callable[[], T]) -> Section:
    """What `build` returns, or why it could not."""
    try:
        return Section(build())
    except RobustDistillError as error:
        return Section(None, error.cause)
    except FileNotFoundError as error:
        return Section(None, f"{Path(str(error.filename)).name} is not there")
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        return Section(None, f"the files for this part cannot be read ({type(error).__name__})")


def _hero(verdict: Mapping[str, Any] | None, settled: Settled | None) -> dict[str, Any]:
    """Headline, tone and the sentences that matter most."""
    done = SETTLED.get(settled.outcome, "") if settled else ""
    moved = [f"{done}: {settled.place}"] if settled and done and settled.place else []
    said = [settled.sentence] if settled else []
    if verdict is None:
        headline = [*moved, "No verdict: nothing was decided in this run"][0]
        return {"tone": "warn", "icon": "–", "headline": headline, "lines": [], "said": said}
    role = (verdict.get("candidate") or {}).get("role", "student")
    decision, rules = str(verdict["verdict"]), verdict["rules"]
    headline = [*moved, HEADLINES.get((role, decision), decision)][0]
    failed = [rule["sentence"] for rule in rules if rule["status"] == "fail"]
    lines = [sentence for sentence in failed if not any(sentence in told for told in said)]
    counts = {status: sum(rule["status"] == status for rule in rules) for status in STATUS}
    if not failed:
        waived = f", {counts['waived']} waived" if counts["waived"] else ""
        lines = [f"{counts['pass']} rules hold{waived}"]
    tone = TONES.get(decision, "warn")
    icon = {"good": "✓", "bad": "✕", "warn": "!"}[tone]
    return {"tone": tone, "icon": icon, "headline": headline, "lines": lines, "said": said}


def _tiles(material: Material) -> list[tuple[str, str, str]]:
    """(label, figure, remark) of the student, for those who read one line."""
    student, teacher = material.models["student"], material.models["teacher"]
    if not student.card:
        return []
    tiles = [
        (f"{name} accuracy", pct(figure["accuracy"]), spread(figure))
        for name, figure in (("robust", student.card["robust"]), ("clean", student.card["clean"]))
    ]
    tiles += section(partial(weakest, student.card)).content or []
    if student.parameters:
        ratio = teacher.parameters / student.parameters if teacher.parameters else 0
        remark = f"1/{ratio:.0f} of the teacher" if ratio >= 2 else ""
        tiles.append(("parameters", _count(student.parameters), remark))
    onnx = ((student.export or {}).get("bytes") or {}).get("onnx")
    return [*tiles, ("exported file", f"{onnx / 1e6:.2f} MB", "ONNX")] if isinstance(onnx, int) else tiles


def _attack_names(judged: Sequence[Model]) -> list[str]:
    return list(
        dict.fromkeys(str(attack["name"]) for model in judged if model.card for attack in model.card["attacks"])
    )


def _gain(verdict: Mapping[str, Any] | None) -> dict[str, Any] | None:
    gain = verdict.get("gain") if verdict else None
    if not gain:
        return None
    chart = Markup("")
    if gain["lower"] is not None:
        figures = float(gain["difference"]), float(gain["lower"]), float(gain["upper"])
        text = "difference of robust accuracy, student less control: {:+.1%}, interval {:+.1%} to {:+.1%}"
        chart = interval_chart(*figures, title=text.format(*figures))
    return {**gain, "chart": chart}


def curve(material: Material, threat: ThreatModel | None) -> dict[str, Any]:
    """Robust accuracy against eps, one line a model; 0 is the clean accuracy on all judged examples."""
    lines, rows, told = [], {}, threat.text_of if threat else spell
    for model in material.judged:
        if not model.curve or not model.card:
            continue
        points = sorted((row["eps"], row["accuracy"], row["n"]) for row in model.curve)
        if points[0][0] > 0:
            points.insert(0, (0.0, float(model.card["clean"]["accuracy"]), float(model.card["sample"]["n"])))
        whiskers = [wilson(round(share * n), round(n)) for _, share, n in points]
        spots = [(eps, share) for eps, share, _ in points]
        names = [told(eps) for eps, _ in spots]
        lines.append(Series(model.name, model.name, spots, whiskers, marker=model.marker, names=names))
        rows[model.name] = points
    if not lines:
        return {"chart": Markup(""), "rows": {}, "models": []}
    summary = "; ".join(f"{name} {', '.join(f'{y:.0%} at {told(x)}' for x, y, _ in rows[name])}" for name in rows)
    chart = line_chart(
        lines, title=f"robust accuracy against eps: {summary}", x_label="eps", mark=threat.eps if threat else None,
        height=300,
    )  # fmt: skip
    return {"chart": chart, "rows": rows, "models": [material.models[name] for name in rows]}


def _training(model: Model) -> tuple[Markup, Markup]:
    """Validation accuracies over epochs, and the training loss."""
    columns = (("val_clean", True), ("val_pgd", False))
    lines = [Series(key, model.name, _column(model, key), dashed=dashed) for key, dashed in columns]
    ends = ", ".join(f"{line.name} ends at {line.points[-1][1]:.0%}" for line in lines if line.points)
    best = (model.summary or {}).get("best_epoch")
    mark = float(best) if isinstance(best, int) else None
    title = f"{model.name}: validation accuracy over epochs; {ends or 'none was measured'}"
    chart = line_chart(lines, title=title, x_label="epoch", whole=True, mark=mark if ends else None, height=200)
    loss = _column(model, "loss")
    about = f"{model.name}: training loss over epochs"
    if loss:
        about += f", from {loss[0][1]:.3g} to {loss[-1][1]:.3g}"
    curve = Series("loss", model.name, loss)
    return chart, line_chart([curve], title=about, x_label="epoch", whole=True, percent=False, height=120)


def _column(model: Model, key: str) -> list[tuple[float, float]]:
    pairs = [(row.get("epoch", math.nan), row.get(key, math.nan)) for row in model.history]
    return [pair for pair in pairs if all(math.isfinite(value) for value in pair)]


def classes(material: Material) -> dict[str, Any] | None:
    """Rows of (class, n, {model: (clean, robust)}), the student's weakest ones if there are too many."""
    judged = [model for model in material.judged if model.card]
    if not judged:
        return None
    lead = next((model for model in judged if model.name == "student"), judged[-1])
    figures = {model.name: {row["class"]: row for row in model.card["per_class"]} for model in judged if model.card}
    rows = list(figures[lead.name].values())
    total = len(rows)
    if total > MOST_CLASSES:
        rows = sorted(rows, key=lambda row: (row["robust"] or 0.0, str(row["class"])))[:MOST_CLASSES]
    table = [(row, {name: known.get(row["class"]) for name, known in figures.items()}) for row in rows]
    return {"lead": lead, "others": [model for model in judged if model is not lead], "rows": table, "total": total}


def _gallery(material: Material, target: str, broken: int, held: int) -> dict[str, Any]:
    card = material.models[target].card
    if not card or not material.manifest:
        return {"target": target, "pictures": []}
    setting = Setting.of(material.artifacts, material.manifest, card["threat"])
    pictures: list[Picture] = gallery(setting, target, broken=broken, held=held)
    return {"target": target, "pictures": pictures}


def _threat(material: Material) -> ThreatModel | None:
    for model in reversed(material.judged):
        found = section(partial(ThreatModel.from_json, dict((model.card or {})["threat"])))
        if isinstance(found.content, ThreatModel):
            return found.content
    return None


def protocol(material: Material) -> str:
    """How many examples were attacked by what, in a sentence."""
    for model in reversed(material.judged):
        if model.card:
            n, split = int(model.card["sample"]["n"]), model.card["sample"].get("split", "test")
            names = ", ".join(str(attack["name"]) for attack in model.card["attacks"])
            return f"{n:,} {split} examples were attacked by {names}; only those that no attack broke count as robust"
    return ""


def _health(material: Material) -> list[tuple[str, str, str]]:
    """(model, level, sentence) of each check that found something."""
    return [
        (model.name, str(item.get("level", "error")), str(item["sentence"]))
        for model in material.judged
        for item in (model.card or {})["health"]
        if item["ok"] is not True
    ]


def pct(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def spread(figure: Mapping[str, Any]) -> str:
    if "lower" not in figure:
        return ""
    return f"{100 * figure['lower']:.1f} to {100 * figure['upper']:.1f} %"


def _count(number: int | None) -> str:
    return "–" if number is None else f"{number:,}"
