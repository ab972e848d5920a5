"""One value of params.yaml changed where it stands: comments, order and every other line stay as their author left
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


def with_resize(workspace: Workspace, edge: int) -> str:
    """The text of params.yaml with data.resize: edge. Raises BadInput if the file is not laid out line by line."""
    path = workspace.root / "params.yaml"
    text = path.read_text(encoding="utf-8")
    content, lines = strict_yaml.read(path)
    number = lines["data", "resize"] - 1
    rows = text.split("\n")
    rows[number] = _with_value(rows[number], str(edge))
    changed = "\n".join(rows)
    content["data"]["resize"] = edge
    if yaml.safe_load(changed) != content:  # a layout of another kind: nothing is guessed
        cause = "data.resize is not on a line of its own, and the file is not rewritten"
        raise BadInput(cause, where=f"{path}: line {number + 1}", fix=f"set data.resize: {edge} there by hand")
    return changed


def _with_value(row: str, value: str) -> str:
    """`key: old   # comment` with another value; the comment stays in its column if there is room."""
    found = re.fullmatch(r"(\s*[^\s:#]+:\s*)([^\s#]\S*)(\s*)(#.*)?", row)
    if found is None:
        return row
    head, old, gap, comment = found.groups(default="")
    room = max(1, len(old) + len(gap) - len(value)) if comment else 0
    return f"{head}{value}{' ' * room}{comment}"
