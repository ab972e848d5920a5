"""What is wrong with settings, in plain words: one sentence a key, with its line where there is a file."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from robustdistill.errors import BadInput, several
from robustdistill.strict_yaml import Lines, Place

NAMED = 10
LONGEST = 60  # characters of a value that are shown
CORRECT = "correct it there"

MUST_BE = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a group of keys",
    "model_type": "a group of keys",
    "greater_than": "greater than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:g}",
    "literal_error": "{expected}",
    "string_pattern_mismatch": "text of the form {pattern}",
    "string_too_short": "text of {min_length} characters or more",
}


def refusal(mistakes: Sequence[BadInput], where: str) -> BadInput:
    """One error for all mistakes in the settings at `where`; the first NAMED are told."""
    if len(mistakes) == 1:
        only = mistakes[0]
        return BadInput(only.cause, where=where, fix=only.fix or CORRECT)
    error = several(mistakes[:NAMED], len(mistakes), where=where)
    return error if error.fix else BadInput(error.cause, where=where, fix="correct them there")


def found(error: ValidationError, model: type[BaseModel], given: Mapping[str, Any], lines: Lines) -> list[BadInput]:
    """The mistakes that pydantic found in `given`, in order."""
    by_key: dict[Place, list[ErrorDetails]] = {}
    for item in error.errors():
        by_key.setdefault(_place(item, given), []).append(item)  # a value of two possible types is told once
    return [_mistake(place, items, model, lines) for place, items in by_key.items()]


def missing(key: str, lines: Lines, fix: str) -> BadInput:
    """`key`: dotted."""
    return BadInput(f"{_line(tuple(key.split('.')), lines)}missing key '{key}'", fix=fix)


def _place(item: ErrorDetails, given: Any) -> Place:
    """Where the mistake is in `given`: what pydantic says without the names of the types it tried."""
    if item["type"] == "missing":
        return item["loc"]
    found: Place = ()
    for part in item["loc"]:
        inside = isinstance(given, Mapping) and part in given
        if not inside and not (isinstance(given, list) and isinstance(part, int) and part < len(given)):
            break
        given, found = given[part], (*found, part)
    return found or item["loc"]


def _mistake(place: Place, items: list[ErrorDetails], model: type[BaseModel], lines: Lines) -> BadInput:
    key, line, first = ".".join(str(part) for part in place), _line(place, lines), items[0]
    if first["type"] == "extra_forbidden":
        return BadInput(f"{line}unknown key '{key}'", fix=_nearest(place, model))
    if first["type"] == "missing":
        return BadInput(f"{line}missing key '{key}'")
    if first["type"] == "value_error":
        return BadInput(f"{line}'{key}': {first['ctx']['error']}")
    wanted = " or ".join(dict.fromkeys(_must_be(item) for item in items))
    return BadInput(f"{line}'{key}' must be {wanted}, is {_value(first['input'])}")


def _must_be(item: ErrorDetails) -> str:
    words = MUST_BE.get(item["type"])
    return words.format(**item.get("ctx", {})) if words else item["msg"].removeprefix("Input should be ")


def _value(value: Any) -> str:
    match value:
        case None:
            return "empty"
        case bool():
            return str(value).lower()
        case Mapping():
            return "a group of keys"
        case list():
            return "a list"
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _line(place: Place, lines: Lines) -> str:
    """`line 7: `, of the key or, if it is not there, of the group it belongs into; "" where neither has one."""
    line = lines.get(place) or lines.get(place[:-1])
    return f"line {line}: " if line else ""


def _nearest(place: Place, model: type[BaseModel]) -> str:
    parent = _descend(model, place[:-1])
    if parent is None:
        return ""
    if not parent.model_fields:
        return "leave it out: there are no options here"
    near = difflib.get_close_matches(str(place[-1]), parent.model_fields, n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else f"valid: {', '.join(parent.model_fields)}"


def _descend(model: type[BaseModel], place: Place) -> type[BaseModel] | None:
    for part in place:
        field = model.model_fields.get(str(part))
        kind = field.annotation if field else None
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            return None
        model = kind
    return model
