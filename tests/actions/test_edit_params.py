"""data.resize written into a params.yaml that somebody has edited by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustdistill import recipes
from robustdistill.actions import edit_params
from robustdistill.errors import BadInput
from robustdistill.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    recipes.write(recipes.load("image_folder"), tmp_path)
    return Workspace(tmp_path)


def _edited(workspace: Workspace, old: str, new: str) -> Path:
    path = workspace.root / "params.yaml"
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    return path


def _line(workspace: Workspace) -> str:
    rows = (workspace.root / "params.yaml").read_text().split("\n")
    return next(row for row in rows if row.strip().startswith("resize:"))


@pytest.mark.parametrize("edge", [4, 64, 1024])
def test_only_the_one_value_changes(workspace: Workspace, edge: int) -> None:
    path = _edited(workspace, "\ndata:", "\n# mine: do not touch\ndata:  # of the camera")
    before, row = path.read_text(), _line(workspace)
    changed = edit_params.with_values(workspace, "data", resize=edge)
    assert path.read_text() == before  # writing is the caller's
    path.write_text(changed)
    assert workspace.params().data.resize == edge
    assert path.read_text().replace(_line(workspace), row) == before
    assert _line(workspace).index("#") == row.index("#") and _line(workspace).split("#")[1] == row.split("#")[1]
    path.write_text(edit_params.with_values(workspace, "data", resize=7))
    assert workspace.params().data.resize == 7 and path.read_text().replace(_line(workspace), row) == before


def test_a_line_without_a_comment_stays_without_one(workspace: Workspace) -> None:
    path = _edited(workspace, _line(workspace), "  resize: 28")
    path.write_text(edit_params.with_values(workspace, "data", resize=128))
    assert _line(workspace) == "  resize: 128"


@pytest.mark.parametrize("row", ["  ? resize\n  : 28", "  resize:\n    28", '  "resize": &edge 28'])
def test_another_layout_is_not_guessed_at(workspace: Workspace, row: str) -> None:
    path = _edited(workspace, _line(workspace), row)
    before = path.read_text()
    with pytest.raises(BadInput, match="no line of its own") as caught:
        edit_params.with_values(workspace, "data", resize=64)
    assert "set data.resize: 64" in caught.value.fix and f"{path}: line" in caught.value.where
    assert path.read_text() == before


@pytest.mark.parametrize(("edge", "cause"), [(3, "at least 4, is 3"), (1025, "at most 1024, is 1025")])
def test_an_edge_out_of_range_is_the_options_mistake(workspace: Workspace, edge: int, cause: str) -> None:
    with pytest.raises(BadInput, match=cause) as caught:
        edit_params.resized(workspace, edge)
    assert caught.value.where == "--resize"
    assert edit_params.resized(workspace, 64).resize == 64
