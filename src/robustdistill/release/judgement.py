"""The page of one judged model, whatever it came from: one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustdistill.release.around import beside, corrupted, weakest
from robustdistill.release.material import Material, Model
from robustdistill.release.pictures import Picture, Setting, first_of_each, picture
from robustdistill.release.report import classes, curve, environment, pct, protocol, section, spread
from robustdistill.threat import ThreatModel

Flags = NDArray[np.bool_]
NAME = "model"
BROKEN, HELD = 6, 2  # pictures of examples that an attack broke, and of some that held


@dataclass(frozen=True)
class Shown:
    """The examples behind the figures. x, x_adv: float32 [N, *shape]; labels [N]; logits: [N, C] of x_adv.

    clean, robust [N]: right without an attack, and under every attack.
    """

    x: NDArray[np.float32]
    x_adv: NDArray[np.float32]
    labels: NDArray[np.int64]
    logits: NDArray[np.float32]
    clean: Flags
    robust: Flags


def render(
    card: Mapping[str, Any],
    shown: Shown,
    *,
    title: str,
    healthy: bool,
    notes: Sequence[str],
    facts: Mapping[str, str],
) -> str:
    """The page as text. card: the scorecard. notes: what has to be known beside the figures."""
    points = [{key: float(value) for key, value in point.items()} for point in card["curve"]]
    model = Model(NAME, card, None, None, [], points)
    material = Material(Path(), {NAME: model}, None)
    threat = ThreatModel.from_json(card["threat"])
    n = int(card["sample"]["n"])
    return environment().get_template("judgement.html.j2").render(
        title=title,
        card=card,
        hero=_hero(card, threat, healthy=healthy),
        notes=notes,
        tiles=_tiles(card),
        attacks=[(attack, round(n * (card["clean"]["accuracy"] - attack["accuracy"]))) for attack in card["attacks"]],
        curve=section(lambda: curve(material, threat)),
        around=section(lambda: beside(material)),
        corrupted=section(lambda: corrupted(material)),
        pictures=section(lambda: _pictures(card, shown, threat)),
        classes=section(lambda: classes(material)),
        threat=threat,
        protocol=protocol(material),
        facts=list(facts.items()),
    )  # fmt: skip


def _hero(card: Mapping[str, Any], threat: ThreatModel, *, healthy: bool) -> dict[str, Any]:
    """Headline, tone and the sentences that matter most."""
    robust, clean = pct(card["robust"]["accuracy"]), pct(card["clean"]["accuracy"])
    if healthy:
        warnings = sum(not item["ok"] for item in card["health"])
        found = f"no check failed, {warnings} warned" if warnings else "all checks hold"
        return {
            "tone": "good",
            "icon": "✓",
            "headline": f"{robust} robust accuracy under {threat.label()}",
            "lines": [f"{clean} without an attack; {found}"],
        }
    failed = [item["sentence"] for item in card["health"] if not item["ok"] and item["level"] == "error"]
    headline = f"This evaluation cannot be trusted: {robust} is no robust accuracy"
    return {"tone": "warn", "icon": "!", "headline": headline, "lines": failed}


def _tiles(card: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    tiles = [
        (f"{name} accuracy", pct(figure["accuracy"]), spread(figure))
        for name, figure in (("robust", card["robust"]), ("clean", card["clean"]))
    ]
    tiles += weakest(card)
    tiles.append(("examples", f"{card['sample']['n']:,}", ""))
    if card["subject"]["parameters"]:
        tiles.append(("parameters", f"{card['subject']['parameters']:,}", str(card["subject"]["architecture"])))
    return tiles


def _pictures(card: Mapping[str, Any], shown: Shown, threat: ThreatModel) -> list[Picture]:
    """Examples in the order of judging, one a class: those that an attack broke first. Raises BadInput: no images."""
    names = [row["class"] for row in card["per_class"]]
    setting = Setting.of(Path(), {"shape": shown.x.shape[1:], "classes": names}, card["threat"])
    broken, held = np.flatnonzero(shown.clean & ~shown.robust), np.flatnonzero(shown.robust)
    rows = [*first_of_each(broken, shown.labels, BROKEN), *first_of_each(held, shown.labels, HELD)]
    return [
        picture(setting, shown.x[row], shown.x_adv[row], int(shown.labels[row]), {NAME: shown.logits[row]})
        for row in rows
    ]
