"""The methods as a table, made from the registry: what the command line lists and docs/methods.md holds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from robustdistill.objectives import OBJECTIVES
from robustdistill.objectives.companion import Companionship
from robustdistill.objectives.types import Objective, Sees

HEAD = ("method", "minimises", "source", "cost of a step", "teachers", "when to use")


class Method(NamedTuple):
    """One objective in words. cost: passes in a step, K being the steps of the attack."""

    name: str
    formula: str
    source: str
    cost: str
    teachers: str
    when: str


def methods() -> list[Method]:
    """All of them, adversarial training first."""
    return [
        Method(name, found.formula, found.source, found.cost, _teachers(found), found.when)
        for name, found in OBJECTIVES.items()
    ]


def _teachers(found: type[Objective]) -> str:
    if found.needs_clean_teacher:
        return "a robust and an undefended one"
    if found.needs_teacher:
        return _SEEN[found.teacher_sees]
    return "a companion, trained along" if issubclass(found, Companionship) else "none"


_SEEN = {
    Sees.NOTHING: "one",
    Sees.CLEAN: "one, seen on x",
    Sees.ADVERSARIAL: "one, seen on x'",
    Sees.GRADIENT: "one, with its gradient",
}


def markdown(rows: Iterable[Method]) -> str:
    """The rows as a Markdown table."""
    lines = [HEAD, ("---",) * len(HEAD), *((f"`{row.name}`", *row[1:]) for row in rows)]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def paragraph(row: Method) -> str:
    """One method for a terminal."""
    lines = (f"  {title:<15} {text}\n" for title, text in zip(HEAD[1:], row[1:], strict=True))
    return f"{row.name}\n{''.join(lines)}"
