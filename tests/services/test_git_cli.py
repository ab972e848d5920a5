"""git in a workspace: commits exactly what it is told to, needs no global identity, and heeds no hook's environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustdistill.errors import ServiceFailed
from robustdistill.services import git_cli


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # no global identity
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "another"))  # as inside a hook
    folder = tmp_path / "workspace"
    folder.mkdir()
    git_cli.init(folder)
    (folder / "params.yaml").write_text("a")
    return folder


def test_commits_the_named_paths_only_and_only_if_they_changed(root: Path) -> None:
    (root / "private.txt").write_text("mine")
    git_cli.git(root, "add", "private.txt")
    assert git_cli.head(root) is None
    assert git_cli.commit(root, ["params.yaml", "not-there.yaml"], "first")
    first = git_cli.head(root)
    assert git_cli.git(root, "show", "--name-only", "--format=", "HEAD").split() == ["params.yaml"]
    assert not git_cli.commit(root, ["params.yaml"], "nothing")
    assert not git_cli.commit(root, ["not-there.yaml"], "nothing")
    assert git_cli.head(root) == first


def test_dirty_means_a_versioned_file_changed(root: Path) -> None:
    git_cli.commit(root, ["params.yaml"], "first")
    (root / "untracked").write_text("")
    assert not git_cli.dirty(root)
    (root / "params.yaml").write_text("b")
    assert git_cli.dirty(root)


def test_dirty_since_a_commit_counts_new_files_among_the_named(root: Path) -> None:
    git_cli.commit(root, ["params.yaml"], "first")
    first = git_cli.head(root) or ""
    paths = ["params.yaml", "data.dvc"]
    assert not git_cli.dirty(root, first, paths)
    (root / "other").write_text("")
    assert not git_cli.dirty(root, first, paths)
    (root / "data.dvc").write_text("")
    assert git_cli.dirty(root, first, paths)
    git_cli.commit(root, paths, "second")
    assert git_cli.dirty(root, first, paths) and not git_cli.dirty(root, "HEAD", paths)
    assert git_cli.dirty(root, "", paths)  # no commit at all: nothing vouches for the files


def test_a_hook_of_the_workspace_is_not_run(root: Path) -> None:
    hook = root / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    assert git_cli.commit(root, ["params.yaml"], "first")


def test_hash_is_the_one_git_gives(root: Path) -> None:
    assert git_cli.hash_file(root / "params.yaml") == git_cli.git(root, "hash-object", "params.yaml").strip()


def test_what_git_says_is_told(tmp_path: Path) -> None:
    with pytest.raises(ServiceFailed, match="not a git repository"):
        git_cli.git(tmp_path, "rev-parse", "--git-dir")
    assert git_cli.head(tmp_path) is None


def test_a_clone_where_nobody_is_named_commits_as_we_do(root: Path, tmp_path: Path) -> None:
    git_cli.commit(root, ["params.yaml"], "first")
    git_cli.git(root, "clone", "--quiet", str(root), str(tmp_path / "clone"))
    clone = tmp_path / "clone"
    (clone / "params.yaml").write_text("b")
    assert git_cli.commit(clone, ["params.yaml"], "second")
    assert git_cli.git(clone, "log", "-1", "--format=%ae").strip() == git_cli.EMAIL
    git_cli.git(clone, "config", "user.name", "ops")
    git_cli.git(clone, "config", "user.email", "ops@example.org")
    (clone / "params.yaml").write_text("c")
    assert git_cli.commit(clone, ["params.yaml"], "third")
    assert git_cli.git(clone, "log", "-1", "--format=%ae").strip() == "ops@example.org"
