"""The records as a table: what each method reached, and its paired difference to the control with an interval."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from benchmarks.study import plot
from benchmarks.study.judging import unpack
from benchmarks.study.plan import METHODS, SIZES
from benchmarks.study.world import World
from numpy.typing import NDArray

from robustdistill.gate.multiplicity import holm
from robustdistill.gate.statistics import Interval, tango
from robustdistill.gate.two_way import TwoWay, compare, discordance, power_note, word
from robustdistill.workspace import write_atomically

MARGIN = 0.01
STRONGER = 0.03  # a teacher worth the name, over the student's own control
Record = dict[str, Any]


@dataclass(frozen=True)
class Line:
    """One method at one size. least, most: robust accuracy of its seeds. blind: what only the attack without gradients
    broke. difference: to its control, None for that one itself. two_way, word: of several seeds."""

    size: str
    method: str
    seeds: int
    clean: float
    robust: float
    seconds: float
    passes: float
    least: float
    most: float
    blind: float | None = None
    difference: float | None = None
    interval: Interval | None = None
    two_way: TwoWay | None = None
    p: float | None = None
    word: str = ""


def line(record: Record) -> str:
    """One finished run in a terminal."""
    run = record.get("run", {})
    name = f"{run.get('stage', ''):8} {run.get('size', ''):6} {run.get('method', ''):18} seed {run.get('seed', '')}"
    if "failed" in record:
        return f"{name}  failed: {record['failed']}"
    spent, found = record["spent"], record["validation"]
    told = f"{name}  {spent['seconds']:7.1f} core-s, {spent.get('passes', 0):6.2f} passes"
    told += f"  validation clean {found['clean']:.4f} robust {found['robust']:.4f}"
    test = record.get("test")
    return told + (f"  test clean {test['clean']:.4f} robust {test['robust']:.4f}" if test else "")


def lines(records: Sequence[Record], stage: str) -> list[Line]:
    """The methods of a stage, judged on validation images (screen) or test images (confirm)."""
    where = "validation" if stage == "screen" else "test"
    found: dict[tuple[str, str], dict[int, Record]] = {}
    for record in records:
        run = record["run"]
        if run["role"] == "student" and run["stage"] == stage and where in record:
            found.setdefault((run["size"], run["method"]), {})[run["seed"]] = record
    order = [(size, name) for size in SIZES for name in METHODS if (size, name) in found]
    made = [_line(size, name, found, where) for size, name in order]
    return [row for size in SIZES for row in _worded([row for row in made if row.size == size])]


def _line(size: str, name: str, found: dict[tuple[str, str], dict[int, Record]], where: str) -> Line:
    ours, control = found[size, name], METHODS[name].control
    mean = {key: float(np.mean([record[where][key] for record in ours.values()])) for key in ("clean", "robust")}
    spent = {key: float(np.mean([r["spent"][key] for r in ours.values()])) for key in ("seconds", "passes")}
    blind = [r[where]["gradient"] - r[where]["robust"] for r in ours.values() if "gradient" in r[where]]
    robust = [r[where]["robust"] for r in ours.values()]
    base = Line(
        size,
        name,
        len(ours),
        **mean,
        **spent,
        least=min(robust),
        most=max(robust),
        blind=float(np.mean(blind)) if blind else None,
    )
    theirs = found.get((size, control), {})
    both = sorted(set(ours) & set(theirs))
    if name == control or not both:
        return base
    a, b = (flags([side[seed] for seed in both], where) for side in (ours, theirs))
    difference = float(a.mean() - b.mean())
    if len(both) == 1:
        gained, lost = int((a & ~b).sum()), int((~a & b).sum())
        return replace(base, difference=difference, interval=tango(gained, lost, a.size))
    made = compare(a, b, margin=MARGIN)
    return replace(base, difference=difference, interval=made.interval, two_way=made)


def flags(records: Sequence[Record], where: str) -> NDArray[np.bool_]:
    """Robust or not, [seeds, n]."""
    digests = {record[where]["digest"] for record in records}
    if len(digests) != 1:
        raise ValueError("the records are of different images")
    return np.stack([unpack(record[where]["robust_bits"], record[where]["n"]) for record in records])


def _worded(rows: list[Line]) -> list[Line]:
    """Words where five seeds speak: Holm's correction over the methods of one size."""
    tested = [row for row in rows if row.two_way is not None]
    p = holm([row.two_way.p for row in tested if row.two_way])
    inferior = holm([row.two_way.inferior for row in tested if row.two_way])
    said = {
        row.method: replace(row, p=a, word=word(row.two_way, a, b, margin=MARGIN))
        for row, a, b in zip(tested, p, inferior, strict=True)
        if row.two_way
    }
    return [said.get(row.method, row) for row in rows]


def teacher_notes(records: Sequence[Record], stage: str) -> Iterator[str]:
    """Whether the teacher is as strong as a teacher has to be, at each size."""
    where, method = ("validation", "validation") if stage == "screen" else ("test", "test")
    found = [r for r in records if r["run"]["role"] == "teacher" and r["run"]["method"] == method and where in r]
    if not found:
        return
    teacher = found[0][where]
    yield f"Teacher: clean {teacher['clean']:.2%}, robust {teacher['robust']:.2%} ({where} images)."
    for row in lines(records, stage):
        if row.method == "pgd_at":
            gap = teacher["robust"] - row.robust
            verdict = "strong enough" if gap >= STRONGER else "NOT 3 points stronger: no test of what a teacher can do"
            yield f"At {row.size} it is {gap * 100:+.1f} points from the control: {verdict}."


def markdown(records: Sequence[Record], stage: str) -> str:
    rows = lines(records, stage)
    if not rows:
        return ""
    what = "one seed, validation images, no claim" if stage == "screen" else "fresh seeds, test images, AutoAttack"
    text = [f"## {stage.capitalize()}: {what}\n", *teacher_notes(records, stage), ""]
    head = ["size", "method", "seeds", "core-s", "passes", "clean", "robust", "blind, points", "to control, points",
            "95 % interval", "p (Holm)", "says", "robust, of each seed"]  # fmt: skip
    text += [_row(head), _row(["---"] * len(head)), *(_row(_cells(row)) for row in rows), ""]
    failed = [r for r in records if "failed" in r and r["run"]["stage"] == stage]
    text += [f"Failed: {r['run']['size']} {r['run']['method']}: {r['failed']}" for r in failed]
    text += notes(records, stage)
    return "\n".join(text) + "\n"


def notes(records: Sequence[Record], stage: str) -> list[str]:
    """What a sample of this size can show."""
    where = "validation" if stage == "screen" else "test"
    pairs = []
    by_key = {(r["run"]["size"], r["run"]["method"], r["run"]["seed"]): r for r in records
              if r["run"]["role"] == "student" and r["run"]["stage"] == stage and where in r}  # fmt: skip
    for (size, name, seed), record in by_key.items():
        control = by_key.get((size, METHODS[name].control, seed))
        if control is not None and control is not record:
            pairs.append((flags([record], where)[0], flags([control], where)[0]))
    return [power_note(discordance(pairs), len(pairs[0][0]), MARGIN).capitalize() + "."] if pairs else []


def _cells(row: Line) -> list[str]:
    cells = [row.size, row.method, str(row.seeds), f"{row.seconds:.1f}", f"{row.passes:.2f}",
             f"{row.clean * 100:.2f}", f"{row.robust * 100:.2f}",
             "" if row.blind is None else f"{row.blind * 100:.1f}"]  # fmt: skip
    spread = "" if row.seeds == 1 else f"{row.least * 100:.1f} to {row.most * 100:.1f}"
    if row.difference is None or row.interval is None:
        return [*cells, "control" if row.method == METHODS[row.method].control else "", "", "", "", spread]
    lower, upper = (bound * 100 for bound in row.interval)
    shown = "" if row.p is None else f"{row.p:.3f}"
    return [*cells, f"{row.difference * 100:+.2f}", f"{lower:+.2f} to {upper:+.2f}", shown, row.word, spread]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def text(records: Sequence[Record]) -> str:
    """The tables of both stages as markdown. All records are of one study."""
    settings = ", ".join(f"{key} {value}" for key, value in records[0]["settings"].items()) if records else "no record"
    return f"# Study: {settings}\n\n" + "\n".join(markdown(records, stage) for stage in ("screen", "confirm"))


def write(world: World) -> str:
    """table.md and one picture for each stage in the study's folder; the text of the former."""
    records = world.records()
    write_atomically(world.out / "table.md", text(records))
    for stage in ("screen", "confirm"):
        rows = lines(records, stage)
        if rows:
            plot.draw(rows, world.out / f"{stage}.png")
    return text(records)
