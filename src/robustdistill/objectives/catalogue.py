"""The methods as a table, made from the registry: what the command line lists and docs/methods.md holds."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from robustdistill.config import dump
from robustdistill.errors import unknown
from robustdistill.objectives import OBJECTIVES
from robustdistill.objectives.companion import Companionship
from robustdistill.objectives.types import Objective, Sees

LETTERS = {
    "forward and backward": "fb", "forward": "f", "backward": "b", "student": "S", "teacher": "T",
    "its moving average": "M", "guide": "G", "peer": "P", "that of the base, and": "base's,",
}  # fmt: skip
NO_TEACHER, COMPANION, TWO = "none", "a companion, trained along", "a robust and an undefended one"
_KINDS = {NO_TEACHER: "no teacher", COMPANION: "companion", TWO: "two teachers"}
BRIEF = ("method", "learns from", "cost of a step", "when to use")
KEY = (
    "cost: passes, f forward and b backward; K is the steps of the attack\n"
    "      S student, T teacher, G guide, P peer, M moving average of the student\n"
    "robustdistill methods NAME tells all about one"
)
HEAD = ("method", "minimises", "source", "cost of a step", "teachers", "when to use")


class Method(NamedTuple):
    """One objective in words. cost: passes in a step, K being the steps of the attack."""

    name: str
    formula: str
    source: str
    cost: str
    teachers: str
    when: str

    @property
    def kind(self) -> str:
        """What it needs to learn from."""
        return _KINDS.get(self.teachers, "one teacher")

    @property
    def passes(self) -> str:
        """The cost in short, without its exceptions, in the letters of LETTERS."""
        text = re.sub(r" \((?:[^()]|\([^()]*\))*\)|; before .*", "", self.cost)
        for word, letter in LETTERS.items():
            text = text.replace(word, letter)
        return text

    def to_json(self) -> dict[str, str]:
        return self._asdict() | {"kind": self.kind}


class Option(NamedTuple):
    """A key of an objective in params.yaml. default: as plain data."""

    name: str
    default: Any
    description: str


def methods() -> list[Method]:
    """All of them, adversarial training first."""
    return [
        Method(name, found.formula, found.source, found.cost, _teachers(found), found.when)
        for name, found in OBJECTIVES.items()
    ]


def _teachers(found: type[Objective]) -> str:
    if found.needs_clean_teacher:
        return TWO
    if found.needs_teacher:
        return _SEEN[found.teacher_sees]
    return COMPANION if issubclass(found, Companionship) else NO_TEACHER


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


def brief(rows: Iterable[Method]) -> list[tuple[str, ...]]:
    """A line for each, under BRIEF: the first reason to use it."""
    return [(row.name, row.kind, row.passes, row.when.partition(";")[0]) for row in rows]


def one(name: str) -> Method:
    """Raises BadInput for an unknown name."""
    found = next((row for row in methods() if row.name == name), None)
    if found is None:
        raise unknown("method", name, OBJECTIVES)
    return found


def options(name: str) -> list[Option]:
    """What may be set of a method in params.yaml."""
    fields = OBJECTIVES[name].Config.model_fields.items()
    return [
        Option(key, _plain(field.get_default(call_default_factory=True)), field.description or "")
        for key, field in fields
    ]


def _plain(default: Any) -> Any:
    if default is PydanticUndefined:
        return "to be given"
    return dump(default) if isinstance(default, BaseModel) else default
