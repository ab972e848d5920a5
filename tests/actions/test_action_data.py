from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from robustdistill.actions import data as action
from robustdistill.config import Data
from robustdistill.data import materialise, prepare
from robustdistill.errors import BadInput
from robustdistill.workspace import Workspace

DATA = Data(source="digits")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A workspace as far as data go: versioned, as DVC would write it down."""
    made = Workspace(tmp_path / "workspace")
    materialise("digits", made.data)
    versioned(made)
    return made


def versioned(workspace: Workspace) -> None:
    digest = action.tree_digest(workspace.data)
    (workspace.root / "data.dvc").write_text(yaml.safe_dump({"outs": [{"md5": digest}]}))


@pytest.fixture
def delivery(tmp_path: Path) -> Path:
    """New data: a hundred of the digits are missing, one is there twice."""
    materialise("digits", tmp_path / "delivery")
    for part in ("x", "y"):
        path = tmp_path / "delivery" / f"train_{part}.npy"
        array = np.load(path)
        np.save(path, np.concatenate([array[100:], array[-1:]]))
    return tmp_path / "delivery"


def test_new_data_take_the_place_of_the_old_and_the_changes_are_said(workspace: Workspace, delivery: Path) -> None:
    before = action.tree_digest(workspace.data)
    report = action.add(workspace, delivery, DATA)
    assert contents(workspace.data) == contents(delivery)
    assert report.changed and (report.before, report.after) == (before, action.tree_digest(delivery))
    assert (report.changes.removed, report.changes.removed_from_train["duplicate"]) == (100, 1)
    assert "100 removed" in report.markdown() and report.to_json()["changed"]


def test_the_same_data_again_change_nothing(workspace: Workspace, tmp_path: Path) -> None:
    materialise("digits", tmp_path / "again")
    assert not action.add(workspace, tmp_path / "again", DATA).changed


def test_faulty_data_leave_the_old_ones(workspace: Workspace, delivery: Path) -> None:
    old = contents(workspace.data)
    labels = np.load(delivery / "train_y.npy")
    np.save(delivery / "train_y.npy", np.where(np.cumsum(labels == 3) > 5, 4 * (labels == 3), labels))
    with pytest.raises(BadInput, match="fewer than 20"):
        action.add(workspace, delivery, DATA)
    assert contents(workspace.data) == old and sorted(p.name for p in workspace.root.iterdir()) == ["data", "data.dvc"]


def test_the_settings_are_those_of_the_workspace(workspace: Workspace, delivery: Path) -> None:
    with pytest.raises(BadInput, match="no such file") as caught:
        action.add(workspace, delivery)
    assert "params.yaml" in caught.value.where


def test_old_data_that_are_faulty_can_be_replaced(workspace: Workspace, delivery: Path) -> None:
    (workspace.data / "train_y.npy").write_bytes(b"damaged")
    report = action.add(workspace, delivery, DATA)
    assert report.changed and report.changes.drift is None


def test_a_first_delivery_needs_no_old_data(tmp_path: Path, delivery: Path) -> None:
    report = action.add(Workspace(tmp_path / "workspace"), delivery, DATA)
    assert report.before is None and report.changed


def test_prepared_and_raw_data_can_be_compared(tmp_path: Path, workspace: Workspace) -> None:
    prepare(workspace.data, tmp_path / "prepared", DATA)
    changes = action.report(tmp_path / "prepared", workspace.data)
    assert (changes.added, changes.removed) == (0, 0)


def test_a_missing_folder_has_no_digest(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such folder"):
        action.tree_digest(tmp_path / "none")


@pytest.mark.slow
def test_the_digest_is_the_one_that_dvc_states_and_altered_content_is_seen(tmp_path: Path) -> None:
    names = ["a.png", "-x", "line\nbreak", "größe 猫", "sub/z", "sub.a", "sub/deep/y", "sub-b"]
    for name in names:
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() * 3 + b"\r\n")
    (tmp_path / "data" / "empty folder").mkdir()
    (tmp_path / "data" / "link").symlink_to(tmp_path / "data" / "a.png")
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=tmp_path, check=True)
    subprocess.run([sys.executable, "-m", "dvc", "add", "-q", "data"], cwd=tmp_path, check=True)
    stated = yaml.safe_load((tmp_path / "data.dvc").read_text())["outs"][0]["md5"]
    assert action.tree_digest(tmp_path / "data") == stated
    (tmp_path / "data" / "sub" / "z").unlink()
    (tmp_path / "data" / "sub" / "z").write_bytes(b"altered")
    assert action.tree_digest(tmp_path / "data") != stated
