"""The zoo's results as the table of docs/judging.md.

    python -m benchmarks.zoo.table

Reads benchmarks/zoo/results.json and writes the part of docs/judging.md between the marks. A test compares both.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results.json")
PAGE = Path(__file__).parents[2] / "docs" / "judging.md"
BEGIN, END = "<!-- zoo: begin -->\n", "<!-- zoo: end -->\n"
EPS = 0.2  # of results that do not say
OVERCLAIM = 0.10  # by PGD-20: below it a mask hides too little for a refusal to be due


def outcome(part: dict[str, Any]) -> str:
    """moved: how many verdicts differ from those of the honest original."""
    kind, chance = part["kind"], 1 / part["n"]
    if part.get("refused"):
        return "refused before any attack"
    low = part["judged"] <= part["adaptive"] + chance
    if kind == "scale" and not part["failed"]:
        return "corrected" if part["moved"] <= 1 else f"**not corrected**: {part['moved']} verdicts differ"
    if kind == "overfitted" and not part["failed"]:
        return f"true and low; FGSM claims {part['one_step']:.1%}" if low else "**passed, overclaimed**"
    due = part["claimed"] - part["adaptive"] >= OVERCLAIM
    if kind == "detector" and not part["failed"]:
        return "abstaining counts as wrong" if low else "**passed, overclaimed**"
    if not part["failed"] and due:
        return "not refused, and not overclaimed: the judge's own figure is as low" if low else "**passed, wrongly**"
    if not part["failed"]:
        return "passed; overclaims too little to be refused"
    return "refused" if due else "refused; overclaims too little for it to be due"


def false_alarms(parts: list[dict[str, Any]]) -> str:
    """With the upper end of the one-sided 95 % interval of Clopper and Pearson: P(at most k of n) = 5 %."""
    from scipy.stats import beta

    n, k = len(parts), sum(bool(part["failed"]) for part in parts)
    upper = 1.0 if k == n else float(beta.ppf(0.95, k + 1, n - k))
    names = ", ".join(f"{part['model']} ({', '.join(part['failed'])})" for part in parts if part["failed"])
    return (
        f"Honest models: {k} of {n} refused, at most {upper:.1%} with 95 % confidence{': ' + names if names else ''}."
    )


def render(results: list[dict[str, Any]]) -> str:
    lines = [
        "| model | eps | PGD-20 claims | the adaptive attack leaves | the judge's figure | outcome | failed checks |",
        "|---|---|---|---|---|---|---|",
    ]
    for part in results:
        if part["kind"] not in ("honest", "original"):
            figures = " | ".join(
                "none" if part[key] is None else f"{part[key]:.1%}" for key in ("claimed", "adaptive", "judged")
            )
            failed = ", ".join(f"`{name}`" for name in part["failed"]) or part.get("refused", "")
            lines.append(f"| {part['model']} | {part.get('eps', EPS):g} | {figures} | {outcome(part)} | {failed} |")
    honest = [part for part in results if part["kind"] == "honest"]
    budget = "the reduced protocol (--quick)" if all(part["quick"] for part in results) else "AutoAttack standard"
    said = f"{results[0]['n']} test digits, {budget}. {false_alarms(honest)}"
    return "\n".join([*lines, "", said, *_figures(honest), ""])


def _figures(honest: list[dict[str, Any]]) -> list[str]:
    """Theirs, by how they were trained."""
    kinds = dict.fromkeys(part["model"].rpartition("-")[0] for part in honest)
    found = {kind: [part for part in honest if part["model"].rpartition("-")[0] == kind] for kind in kinds}
    rows = [
        f"| {kind} | {parts[0].get('eps', EPS):g} | " + ", ".join(f"{part['judged']:.1%}" for part in parts) + " |"
        for kind, parts in found.items()
    ]
    return ["", "| honest model | eps | the judge's figure, seed by seed |", "|---|---|---|", *rows]


def placed(page: str, table: str) -> str:
    before, rest = page.split(BEGIN)
    return before + BEGIN + table + END + rest.split(END)[1]


def main() -> None:
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    PAGE.write_text(placed(PAGE.read_text(encoding="utf-8"), render(results)), encoding="utf-8")


if __name__ == "__main__":
    main()
