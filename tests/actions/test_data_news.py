"""Reports of changed data: left by who versions the data, shown by the next flow run, repeated rather than lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from robustdistill.actions import data, data_news, init, version
from robustdistill.actions.session import session
from robustdistill.cli import main
from robustdistill.services import dvc_cli
from robustdistill.services.mlflow_store import Store
from robustdistill.workspace import Workspace


def test_reports_add_up_and_one_of_the_same_data_is_replaced(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert data_news.waiting(workspace) == ""
    for digest, text in (("a", "first"), ("a", "again"), ("b", "second"), ("a", "back")):
        data_news.leave(workspace, digest, f"{text}\n")
    assert data_news.waiting(workspace) == "## Data a\n\nagain\n\n## Data b\n\nsecond\n\n## Data a\n\nback\n\n"
    data_news.told(workspace)
    data_news.told(workspace)
    assert data_news.waiting(workspace) == "" and list(workspace.work.iterdir()) == []


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return init.init(tmp_path_factory.mktemp("news") / "digits", "digits")


@pytest.fixture
def workspace(template: Workspace, tmp_path: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A new workspace with data, and a record in MLflow that opens quickly."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copytree(template.root, tmp_path / "digits", symlinks=True)
    shutil.copyfile(migrated, tmp_path / "digits" / ".work" / "mlflow.db")
    return Workspace(tmp_path / "digits")


@pytest.fixture
def delivery(workspace: Workspace, tmp_path: Path) -> Path:
    """A hundred of the digits are missing."""
    shutil.copytree(workspace.data, tmp_path / "delivery")
    for part in ("x", "y"):
        path = tmp_path / "delivery" / f"train_{part}.npy"
        np.save(path, np.load(path)[100:])
    return tmp_path / "delivery"


def _add(workspace: Workspace, path: Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["--workspace", str(workspace.root), "data", "add", str(path)])
    return int(caught.value.code or 0)


def _sections(workspace: Workspace) -> list[str]:
    """The digests that reports are waiting of."""
    lines = data_news.waiting(workspace).splitlines()
    return [line.removeprefix(data_news.HEADING) for line in lines if line.startswith(data_news.HEADING)]


@pytest.mark.slow
def test_init_and_data_add_leave_reports(workspace: Workspace, delivery: Path) -> None:
    first = dvc_cli.digest(workspace.root)
    assert _sections(workspace) == [first]
    assert _add(workspace, delivery) == 0
    assert _sections(workspace) == [first, dvc_cli.digest(workspace.root)]
    assert "100 removed" in data_news.waiting(workspace)
    left = data_news.waiting(workspace)
    assert _add(workspace, delivery) == 0 and data_news.waiting(workspace) == left


class Killed(BaseException):
    """Stands in for SIGKILL: nothing in the code may catch it."""


def _killed(*_: object) -> None:
    raise Killed


@pytest.mark.slow
@pytest.mark.parametrize("after", ["flow", "data add"])
@pytest.mark.parametrize("moment", [(data_news, "leave"), (dvc_cli, "add_data")], ids=["put there", "report left"])
def test_no_report_is_lost_when_data_add_is_killed(
    workspace: Workspace, delivery: Path, monkeypatch: pytest.MonkeyPatch, moment: tuple[object, str], after: str
) -> None:
    data_news.told(workspace)
    data.prepare(workspace.data, workspace.out("prepare"), workspace.params().data)
    with monkeypatch.context() as patch:
        patch.setattr(*moment, _killed)
        assert _add(workspace, delivery) == 143
    if after == "flow":
        assert "100 removed" in version.version_data(workspace)
    else:
        assert _add(workspace, delivery) == 0
    assert _sections(workspace) == [dvc_cli.digest(workspace.root)]
    assert "100 removed" in data_news.waiting(workspace)
    assert version.version_data(workspace) == ""


@pytest.mark.slow
def test_a_report_goes_with_the_run_that_shows_it_and_only_once(workspace: Workspace) -> None:
    text = data_news.waiting(workspace)
    with session(workspace, "r0", name="rescore", reason="test"):
        pass  # showed nothing
    with pytest.raises(Killed), session(workspace, "r1", name="retrain", reason="test") as current:
        current.changes = data_news.waiting(workspace)
        raise Killed
    assert data_news.waiting(workspace) == text
    with session(workspace, "r2", name="retrain", reason="test") as current:
        current.changes = data_news.waiting(workspace)
    assert data_news.waiting(workspace) == ""
    store = Store.open(None, workspace.work)
    found = {}
    for run in store.runs(store.experiment("digits")):
        kept = [item.path for item in store.client.list_artifacts(run.id, "data")]
        found[run.tags["robustdistill.run"]] = "data/data-changes.md" in kept
        if run.tags["robustdistill.run"] == "r2":
            assert Path(store.client.download_artifacts(run.id, "data/data-changes.md")).read_text() == text
    assert found == {"r0": False, "r1": True, "r2": True}


@pytest.mark.slow
def test_a_report_stays_if_the_end_of_the_run_cannot_be_written_down(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("robustdistill.actions.mirror.Mirror.conclude", full)
    text = data_news.waiting(workspace)
    with session(workspace, "r1", name="retrain", reason="test") as current:
        current.changes = text
    assert data_news.waiting(workspace) == text
