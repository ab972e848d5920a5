"""A workspace: where things lie, and that two runs cannot hold it at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from robustdistill import recipes
from robustdistill.errors import BadInput
from robustdistill.stages.catalog import STAGES
from robustdistill.workspace import Workspace, write_atomically


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    recipes.write(recipes.load("digits"), tmp_path)
    return Workspace.find(tmp_path)


def test_is_found_where_params_are(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace.root)
    assert Workspace.find() == workspace
    assert workspace.name == "digits"
    with pytest.raises(BadInput, match="not a workspace"):
        Workspace.find(workspace.root / "nowhere")


def test_each_stage_has_its_place(workspace: Workspace) -> None:
    for name, stage in STAGES.items():
        assert workspace.out(name) == workspace.root / stage.out
    assert workspace.scratch("score@student", "k") == workspace.root / ".work/score@student/k"


def test_a_second_run_is_refused_with_the_first_ones_pid(workspace: Workspace) -> None:
    script = "from robustdistill.workspace import Workspace; from pathlib import Path; import sys\n" + (
        "with Workspace.find(Path(sys.argv[1])).lock(): print(__import__('os').getpid(), flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, workspace.root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        pid = holder.stdout.readline().strip()
        with pytest.raises(BadInput, match=rf"locked by another run \(pid {pid}\)"), workspace.lock():
            pass
        assert workspace.holder() == pid
    finally:
        holder.kill()  # the kernel frees the lock of a holder that could not clean up
        holder.communicate()
    assert workspace.holder() is None
    with workspace.lock(), pytest.raises(BadInput, match="locked"), workspace.lock():
        pass
    with workspace.lock():
        pass


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "file"
    write_atomically(path, "first")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "second")
    assert path.read_text() == "first"
    assert list(path.parent.iterdir()) == [path]
