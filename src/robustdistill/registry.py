"""From a name in a config to a class: each package shows its choices as one visible dict, and specs are resolved here.

A class of such a table has a class attribute `name` and a nested `Config` (pydantic) that documents its options.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from robustdistill.config import Spec, options
from robustdistill.errors import BadInput, unknown
from robustdistill.strict_yaml import Lines

T = TypeVar("T")


def table(kind: str, *classes: type[T]) -> dict[str, type[T]]:
    """{class.name: class}, in the order given. Raises ValueError if a name is missing or taken twice."""
    found: dict[str, type[T]] = {}
    for each in classes:
        name = getattr(each, "name", None)
        if not isinstance(name, str) or not name:
            raise ValueError(f"{kind} {each.__name__} has no class attribute `name`")
        if name in found:
            raise ValueError(f"two {kind}s are called {name!r}: {found[name].__name__} and {each.__name__}")
        found[name] = each
    return found


def resolve(
    kind: str, table: Mapping[str, type[T]], spec: Spec, *, where: str, lines: Lines | None = None
) -> tuple[type[T], Any]:
    """The class that `spec` names and its checked Config.

    spec: {"name": ..., **options}. where: the place of the spec in the user's files, for the message; lines: of its
    keys, if that is a file.
    Raises BadInput if the name is missing or unknown, or an option is unknown, mistyped or out of range.
    """
    choices = ", ".join(sorted(table))
    if not isinstance(spec, Mapping):
        raise BadInput(f"expected a {kind} as a mapping, not {spec!r}", where=where, fix=f"name: one of {choices}")
    given = dict(spec)
    name = given.pop("name", None)
    if not isinstance(name, str):
        raise BadInput(f"this {kind} has no name", where=where, fix=f"name: one of {choices}")
    if name not in table:
        line = (lines or {}).get(("name",))
        raise unknown(kind, name, table, where=f"{where}, line {line}" if line else where)
    found = table[name]
    return found, options(_config_of(found), given, where=f"{where} ({name})", lines=lines)


def _config_of(owner: type[Any]) -> Any:
    """The options class of a table's class. Raises ValueError if it has none: a fault of ours, not of a user."""
    config = getattr(owner, "Config", None)
    if config is None:
        raise ValueError(f"{owner.__name__} has no nested class `Config`")
    return config
