"""Which methods are confirmed: the best of the screen by validation robust accuracy, at each size, and the controls.
The choice is written down once; the test set has no part in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from benchmarks.study.plan import CONFIRMED, CONTROLS, METHODS, screen
from benchmarks.study.world import World

from robustdistill.data.files import write_json
from robustdistill.errors import BadInput


def selected(world: World, sizes: Sequence[str], methods: Sequence[str], *, partial: bool) -> dict[str, list[str]]:
    """size -> methods, controls first. partial: choose although some of the screen is missing. Raises BadInput."""
    file = world.out / "selected.json"
    if file.is_file():
        known: dict[str, list[str]] = json.loads(file.read_text(encoding="utf-8"))
        return known
    missing = [run for run in screen(sizes, methods) if world.read(run) is None]
    if missing and not partial:
        raise BadInput(
            f"the screen lacks {len(missing)} runs, such as {missing[0].key}", fix="finish it, or give --partial"
        )
    found = {size: [*CONTROLS, *_best(world, size, methods)] for size in sizes}
    write_json(file, found)
    return found


def _best(world: World, size: str, methods: Sequence[str]) -> list[str]:
    ranked: list[tuple[float, float, str]] = []
    for run in screen([size], methods):
        record = world.read(run)
        if eligible(run.method) and record is not None and "failed" not in record:
            ranked.append((*rank(record), run.method))
    return [name for *_, name in sorted(ranked, reverse=True)[:CONFIRMED]]


def eligible(name: str) -> bool:
    """The few-labels setting has a control of its own, and a control with the teacher's time another budget."""
    return name not in CONTROLS and METHODS[name].kind != "few" and not METHODS[name].teacher_time


def rank(record: dict[str, Any]) -> tuple[float, float]:
    return record["validation"]["robust"], record["validation"]["clean"]
