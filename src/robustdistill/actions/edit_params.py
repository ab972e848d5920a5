"""Values of params.yaml changed where they stand: comments, order and every other line stay as their author left
them."""

from __future__ import annotations

import re

import yaml

from robustdistill import config, strict_yaml
from robustdistill.errors import BadInput
from robustdistill.workspace import Workspace


def resized(workspace: Workspace, edge: int) -> config.Data:
    """The workspace's data settings with data.resize: edge. Raises BadInput if it is out of range; writes nothing."""
    given = config.dump(workspace.params().data) | {"resize": edge}
    return config.options(config.Data, given, where="--resize")


def with_values(workspace: Workspace, group: str, **values: str | int) -> str:
    """The text of params.yaml with other values of keys of a group, such as `data`.

    Raises BadInput for a key that has no line of its own: a layout of another kind is not guessed at.
    """
    path = workspace.root / "params.yaml"
    content, lines = strict_yaml.read(path)
    rows = path.read_text(encoding="utf-8").split("\n")
    for key, value in values.items():
        number = lines.get((group, key), 0)
        rows[number - 1] = _with_value(rows[number - 1], key, str(value))
        content[group][key] = value
        if number == 0 or yaml.safe_load("\n".join(rows)) != content:
            raise BadInput(
                f"{group}.{key} has no line of its own, and the file is not rewritten",
                where=f"{path}: line {number}" if number else str(path),
                fix=f"set {group}.{key}: {value} there by hand",
            )
    return "\n".join(rows)


def _with_value(row: str, key: str, value: str) -> str:
    """`key: old   # comment` with another value; the comment stays in its column if there is room."""
    found = re.fullmatch(rf"(\s*{key}:\s*)([^\s#]\S*)(\s*)(#.*)?", row)
    if found is None:
        return row
    head, old, gap, comment = found.groups(default="")
    room = max(1, len(old) + len(gap) - len(value)) if comment else 0
    return f"{head}{value}{' ' * room}{comment}"
