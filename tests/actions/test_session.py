"""What a flow run is tagged with: the commit that its stages ran on, and the one that holds its results."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustdistill import recipes
from robustdistill.actions import session, version
from robustdistill.actions.summary import Summary
from robustdistill.services import git_cli
from robustdistill.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Committed params, no data yet."""
    recipes.write(recipes.load("digits"), tmp_path)
    git_cli.init(tmp_path)
    git_cli.commit(tmp_path, ["params.yaml", "policy.yaml", "dvc.yaml"], "begin")
    return Workspace(tmp_path)


def data(workspace: Workspace, digest: str) -> None:
    (workspace.root / "data.dvc").write_text(f"outs:\n- md5: {digest * 32}.dir\n  path: data\n")


def names(tags: dict[str, str]) -> tuple[str, str, str | None]:
    return tags["robustdistill.git_commit"], tags["robustdistill.git_dirty"], tags.get("robustdistill.result_commit")


def test_a_run_that_changes_nothing_names_one_commit(workspace: Workspace) -> None:
    began = git_cli.head(workspace.root)
    assert names(session.tags(workspace, "r", "test", began)) == (began, "false", None)
    assert names(session.ending(workspace, "r", "test", began, None)) == (began, "false", None)


def test_a_run_that_commits_names_both(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results alone leave the first commit good for params and data; new data, versioned on the way, do not."""
    monkeypatch.setattr(version.dvc_remote, "push", lambda _: None)
    began = git_cli.head(workspace.root)
    (workspace.root / "dvc.lock").write_text("schema: '2.0'\n")
    version.commit(workspace, "r")
    results = git_cli.head(workspace.root)
    assert results != began
    assert names(session.ending(workspace, "r", "test", began, None)) == (began, "false", results)
    data(workspace, "0")
    assert names(session.tags(workspace, "r", "test", began))[:2] == (began, "true")
    version.commit(workspace, "r")
    last = session.ending(workspace, "r", "test", began, None)
    assert names(last) == (began, "true", git_cli.head(workspace.root))
    assert last["robustdistill.data_digest"] == f"{'0' * 32}.dir"


def test_edited_params_are_not_those_of_the_commit(workspace: Workspace) -> None:
    path = workspace.root / "params.yaml"
    path.write_text(path.read_text().replace("seed: ", "seed: 1"))
    assert names(session.tags(workspace, "r", "test", git_cli.head(workspace.root)))[1] == "true"


def test_a_workspace_without_a_commit_is_dirty(workspace: Workspace) -> None:
    assert names(session.tags(workspace, "r", "test", None)) == ("", "true", None)


def test_the_description_says_what_the_run_came_to(workspace: Workspace) -> None:
    summary = Summary(str(workspace.root), "promoted", "digits version 2 is champion")
    last = session.ending(workspace, "r", "nightly", git_cli.head(workspace.root), summary)
    told = "promoted: digits version 2 is champion (reason of the run: nightly)"
    assert (last["robustdistill.outcome"], last["mlflow.note.content"]) == ("promoted", told)
