"""A clone on another machine: the remote, a folder here, gives it the same bytes, and nothing has to run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from robustdistill.actions import version
from robustdistill.actions.data import md5, tree_digest
from robustdistill.errors import ServiceFailed
from robustdistill.services import dvc_cli, git_cli
from robustdistill.stages.catalog import STAGES
from robustdistill.workspace import Workspace

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pushed(finished: Path, copied: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace(copied(finished))
    dvc_cli.dvc(workspace.root, "remote", "modify", "local", "url", str(tmp_path_factory.mktemp("remote")))
    git_cli.git(workspace.root, "commit", "--quiet", "--all", "--message", "the remote")
    version.commit(workspace, "a run")
    return workspace


def clone(workspace: Workspace, into: Path) -> Workspace:
    git_cli.git(workspace.root, "clone", "--quiet", str(workspace.root), str(into))
    return Workspace(into)


def test_the_same_bytes_and_nothing_to_do(pushed: Workspace, tmp_path: Path) -> None:
    other = clone(pushed, tmp_path / "digits")
    assert not other.data.exists() and not other.artifacts.exists() and not (other.root / ".dvc" / "cache").exists()
    assert version.version_data(other) == ""
    assert version.bring_results(other) == list(STAGES)
    assert dvc_cli.changed(other.root) == []
    for folder in ["data", *(stage.out for stage in STAGES.values())]:
        assert tree_digest(other.root / folder) == tree_digest(pushed.root / folder), folder
    version.require_unaltered_results(other)


def test_an_altered_object_of_the_remote_is_not_handed_out(pushed: Workspace, tmp_path: Path) -> None:
    weights = Path("artifacts", "student", "model.safetensors")
    digest = md5(pushed.root / weights)
    remote = tmp_path / "altered"
    shutil.copytree(dvc_cli.dvc(pushed.root, "config", "remote.local.url").strip(), remote)
    copy = remote / "files" / "md5" / digest[:2] / digest[2:]
    copy.chmod(0o644)
    copy.write_bytes(copy.read_bytes()[:-1] + b"\x7f")
    other = clone(pushed, tmp_path / "digits")
    dvc_cli.dvc(other.root, "remote", "modify", "--local", "local", "url", str(remote))
    assert version.version_data(other) == ""
    with suppress(ServiceFailed):
        version.bring_results(other)
    assert not (other.root / weights).exists() or md5(other.root / weights) == digest
