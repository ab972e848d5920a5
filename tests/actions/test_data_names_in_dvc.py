"""Data under any legal names, added with the real commands: DVC has all of them and gives them back."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robustdistill.actions import data, init, version
from robustdistill.cli import main
from robustdistill.data import prepare
from robustdistill.services import dvc_cli
from robustdistill.workspace import Workspace

pytestmark = pytest.mark.slow

CLASSES = {b"caf\xe9": "caf\\xe9", b".dvc": "\\x2edvc", b"-rf '\n\xf0\x9f\x90\x88": "-rf '\n🐈", b"c" * 255: "c" * 255}
NAMES = [b"\xff.png", b"\\xff.png", b"a\nb", "😀 'q\" ".encode(), b"-rf", b".git", b".dvcignore", b"\xff" * 255]
NAMES.append(b"n" * 255)


def awkward(root: Path) -> Path:
    """150 images a class; the first files of a class are called NAMES."""
    for name in CLASSES:
        folder = root / os.fsdecode(name)
        folder.mkdir(parents=True)
        for i, file in enumerate([*NAMES, *(f"{i}.png".encode() for i in range(150 - len(NAMES)))]):
            pixels = hashlib.shake_256(name + b"%d" % i).digest(64)
            with (folder / os.fsdecode(file)).open("wb") as stream:
                Image.fromarray(np.frombuffer(pixels, dtype=np.uint8).reshape(8, 8)).save(stream, "PNG")
    return root


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return init.init(tmp_path_factory.mktemp("names") / "mine", "image_folder")


def check(workspace: Workspace, tmp_path: Path) -> None:
    """All 600 images are versioned, come back, and are those of the four classes."""
    assert dvc_cli.digest(workspace.root) == data.tree_digest(workspace.data)
    assert dvc_cli.dvc(workspace.root, "data", "status", "--quiet") == ""
    shutil.rmtree(workspace.data)
    dvc_cli.dvc(workspace.root, "checkout", "--quiet", "data.dvc")
    assert dvc_cli.digest(workspace.root) == data.tree_digest(workspace.data)
    manifest = prepare(workspace.data, tmp_path / "out", workspace.params().data)
    assert manifest.classes == sorted(CLASSES.values())
    assert [sum(each) for each in zip(*manifest.counts.values(), strict=True)] == [150] * 4
    assert manifest == prepare(awkward(tmp_path / "again"), tmp_path / "direct", workspace.params().data)


def test_data_add_takes_any_names(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--workspace", str(workspace.root), "data", "add", str(awkward(tmp_path / "raw"))])
    check(workspace, tmp_path)


def test_so_does_a_flow_for_data_put_there_by_hand(workspace: Workspace, tmp_path: Path) -> None:
    shutil.rmtree(workspace.data, ignore_errors=True)
    awkward(workspace.data)
    (workspace.root / "data.dvc").unlink(missing_ok=True)
    assert "caf\\xe9" in version.version_data(workspace, plan=True)
    assert (workspace.data / os.fsdecode(b"caf\xe9")).exists()  # a plan renames nothing
    assert "caf\\xe9" in version.version_data(workspace)
    check(workspace, tmp_path)
