"""The real commands on a file system that is really full: exit code 4, a sentence, nothing lost, and on they go."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from robustdistill.actions import data, init
from robustdistill.errors import ServiceFailed
from robustdistill.services import dvc_cli
from robustdistill.workspace import Workspace

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return init.init(tmp_path_factory.mktemp("full") / "digits", "digits")


@pytest.fixture
def workspace(template: Workspace, small_disk: Callable[[int], Path]) -> Workspace:
    """With a disk of its own."""
    return Workspace(shutil.copytree(template.root, small_disk(8) / "digits", symlinks=True))


def robustdistill(workspace: Workspace, *arguments: str, scratch: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "robustdistill.cli", "--workspace", str(workspace.root), "--json", *arguments]
    environment = {**os.environ, "TMPDIR": str(scratch)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def refused(done: subprocess.CompletedProcess[str], disk: Path) -> None:
    """Checks the sentence and the object of a full disk."""
    assert done.returncode == ServiceFailed.exit_code, done.stderr
    error = json.loads(done.stdout)["error"]
    assert error["kind"] == "service_failed" and error["cause"].startswith("the disk is full")
    assert error["where"].startswith(str(disk)) and "make room" in error["fix"]
    assert error["cause"] in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("what", ["the copy", "what is prepared"])
def test_data_add_on_a_full_disk(workspace: Workspace, tmp_path: Path, fill: Callable[..., Path], what: str) -> None:
    disk = workspace.root.parent
    delivery = Path(shutil.copytree(workspace.data, tmp_path / "delivery"))
    pixels = np.load(delivery / "train_x.npy")
    pixels[0, 0, 0, 0] ^= 1
    np.save(delivery / "train_x.npy", pixels)
    scratch = disk / "tmp" if what == "what is prepared" else tmp_path / "tmp"
    scratch.mkdir()
    before, stated = data.tree_digest(workspace.data), dvc_cli.digest(workspace.root)
    filler = fill(disk, leave=16 * 1024)
    refused(robustdistill(workspace, "data", "add", str(delivery), scratch=scratch), disk)
    assert data.tree_digest(workspace.data) == before == stated == dvc_cli.digest(workspace.root)
    assert not [path.name for path in workspace.root.iterdir() if path.name.startswith(".data")]
    filler.unlink()
    done = robustdistill(workspace, "data", "add", str(delivery), scratch=scratch)
    assert done.returncode == 0 and json.loads(done.stdout)["changed"]
    assert dvc_cli.digest(workspace.root) == data.tree_digest(workspace.data) == data.tree_digest(delivery)


def test_a_stage_on_a_full_disk(workspace: Workspace, tmp_path: Path, fill: Callable[..., Path]) -> None:
    disk = workspace.root.parent
    filler = fill(disk, leave=64 * 1024)
    stage = ("stage", "prepare", "--revision", "1")
    refused(robustdistill(workspace, *stage, scratch=tmp_path), disk)
    assert data.tree_digest(workspace.data) == dvc_cli.digest(workspace.root)
    filler.unlink()
    done = robustdistill(workspace, *stage, scratch=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (workspace.out("prepare") / "manifest.json").exists()
