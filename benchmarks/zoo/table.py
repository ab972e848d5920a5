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
OVERCLAIM = 0.10  # by PGD-20: below it a mask hides too little for a refusal to be due


def outcome(part: dict[str, Any]) -> str:
    """moved: how many verdicts differ from those of the honest original."""
    if part["kind"] == "scale" and not part["failed"]:
        return "corrected" if part["moved"] <= 1 else f"not corrected ({part['moved']} verdicts differ)"
    due = part["claimed"] - part["adaptive"] >= OVERCLAIM
    if not part["failed"] and due and part["judged"] <= part["adaptive"]:
        return "not refused, and not overclaimed: the judge's own figure is as low"
    if not part["failed"]:
        return "**passed, wrongly**" if due else "passed; overclaims too little to be refused"
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
        "| model | PGD-20 claims | the adaptive attack leaves | the judge's figure | outcome | failed checks |",
        "|---|---|---|---|---|---|",
    ]
    for part in results:
        if part["kind"] != "honest":
            figures = " | ".join(f"{part[key]:.1%}" for key in ("claimed", "adaptive", "judged"))
            failed = ", ".join(f"`{name}`" for name in part["failed"])
            lines.append(f"| {part['model']} | {figures} | {outcome(part)} | {failed} |")
    honest = [part for part in results if part["kind"] == "honest"]
    budget = "the reduced protocol (--quick)" if all(part["quick"] for part in results) else "the full protocol"
    return "\n".join([*lines, "", f"{results[0]['n']} test digits, {budget}. {false_alarms(honest)}", ""])


def placed(page: str, table: str) -> str:
    before, rest = page.split(BEGIN)
    return before + BEGIN + table + END + rest.split(END)[1]


def main() -> None:
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    PAGE.write_text(placed(PAGE.read_text(encoding="utf-8"), render(results)), encoding="utf-8")


if __name__ == "__main__":
    main()
