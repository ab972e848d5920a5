"""Files of settings: safe YAML without duplicate keys, and the line on which each key stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from robustdistill.errors import BadInput

Place = tuple[str | int, ...]  # ("judge", "attacks", 0, "steps")
Lines = Mapping[Place, int]


class _NoDuplicates(yaml.SafeLoader):
    """Safe YAML in which a key that is given twice is an error: the second would silently win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # refused by the loader itself
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"'{key.value}' is given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read(path: Path) -> tuple[dict[str, Any], Lines]:
    """The mapping in a file, and the lines of its keys and list items, from 1. Raises BadInput."""
    try:
        loader = _NoDuplicates(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        content = None if node is None else loader.construct_document(node)
        lines = {} if node is None else dict(_lines(node, (), set()))
    except FileNotFoundError as error:
        raise BadInput(
            "there is no such file", where=str(path), fix="make a workspace: robustdistill init DIR"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"not YAML: {_words(error)}", where=str(path), fix="correct it there") from error
    except RecursionError as error:
        raise BadInput("nested too deeply to be read", where=str(path), fix="correct it there") from error
    if not isinstance(content, dict):
        raise BadInput("expected keys and values at the top", where=str(path), fix="correct it there")
    return content, lines


def _words(error: Exception) -> str:
    """`line 3: what is wrong`, where YAML says so."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return str(error)


def _lines(node: yaml.Node, place: Place, seen: set[int]) -> Iterator[tuple[Place, int]]:
    if id(node) in seen:  # an alias: it may lead to itself, or to very much
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below = (*place, str(key.value))
            yield below, key.start_mark.line + 1
            yield from _lines(value, below, seen)
    elif isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            yield (*place, i), item.start_mark.line + 1
            yield from _lines(item, (*place, i), seen)
